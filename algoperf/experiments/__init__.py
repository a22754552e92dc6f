"""What is built of many studies."""
