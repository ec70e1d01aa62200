"""Generate text by the whole model in this process: what a swarm must answer. Argument: the model's folder.

Reads lines like {"prompt": [1, 2], "count": 8}, writes lines like {"tokens": [1, 2, ...]}.
"""

import json
import sys

import torch
from transformers import LlamaForCausalLM

model = LlamaForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    tokens = model.generate(torch.tensor([request["prompt"]]), max_new_tokens=request["count"], do_sample=False)
    print(json.dumps({"tokens": tokens[0].tolist()}), flush=True)
