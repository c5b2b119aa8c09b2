"""Compression ratio against quality: tokenizers beside formats of images and sounds."""
