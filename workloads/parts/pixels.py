"""The normalisation of pixels, which is the first thing that a model of images computes.

Rows hold bytes, a fourth of the size of floats; mixed rows hold floats from 0 to 255 as well. The
means and standard deviations are those of ImageNet's training images, of AlgoPerf and torchvision.
"""

MEAN_C = tuple(255 * value for value in (0.485, 0.456, 0.406))
STD_C = tuple(255 * value for value in (0.229, 0.224, 0.225))
