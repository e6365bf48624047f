"""The demo model: a tiny GPT-OSS, trained by this package, for machines without a GPU. See docs/demo-model.md."""
