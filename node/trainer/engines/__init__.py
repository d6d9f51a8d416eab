"""Language models behind one interface: built-in, transformers, vLLM, sharded."""
