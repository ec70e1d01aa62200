"""Make a tiny Llama with random weights. Arguments: its folder, whose name ends in -petals, and the number of layers."""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=128,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=int(sys.argv[2]),
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.5,  # so that every block changes what comes out
)
# One file for about each block, as large models have.
LlamaForCausalLM(config).save_pretrained(sys.argv[1], max_shard_size="150KB", safe_serialization=True)
