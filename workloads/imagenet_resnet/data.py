"""The rows of imagenet_resnet, which are those of both ImageNet workloads."""

from workloads.parts.imagenet import load

__all__ = ["load"]
