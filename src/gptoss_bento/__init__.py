"""Serves OpenAI's GPT-OSS models with vLLM inside BentoML: one engine, the OpenAI API and a native job API."""

__version__ = "0.1.0"
