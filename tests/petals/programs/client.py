"""A Petals client. Arguments: the model's folder, its DHT prefix, the attempts at a request, addresses of the swarm.

Reads lines like {"prompt": [1, 2], "count": 8}, writes lines like {"tokens": [1, 2, ...]} or {"error": "..."}. With
"session": true a request continues one inference session, whose cache the servers hold, until {"end": true}.
"""

import contextlib
import gc
import json
import sys

import torch

from swarmkeel.control.petals_hivemind import restore_hivemind_names

restore_hivemind_names()

from petals import AutoDistributedModelForCausalLM  # noqa: E402 - hivemind's names come first

folder, prefix, attempts, *peers = sys.argv[1:]
model = AutoDistributedModelForCausalLM.from_pretrained(
    folder,
    initial_peers=peers,
    dht_prefix=prefix,
    torch_dtype=torch.float32,
    max_retries=int(attempts),
    min_backoff=0.2,
    max_backoff=1.0,
    ban_timeout=0.5,
    update_period=1.0,
    request_timeout=120.0,
)
print(json.dumps({"ready": True}), flush=True)
# A session that failed closes itself when it is collected as garbage, and waits for the thread of the client's requests.
# When it is that thread which collects it, it waits for itself for ever: so Petals' clients may hang after a failure.
# Here garbage is collected by this thread alone.
gc.disable()
open_session = contextlib.ExitStack()
session = None
for line in sys.stdin:
    request = json.loads(line)
    gc.collect()
    try:
        if request.get("end"):
            open_session.close()
            session = None
            print(json.dumps({"ended": True}), flush=True)
            continue
        if request.get("session") and session is None:
            session = open_session.enter_context(model.inference_session(max_length=64))
        prompt = torch.tensor([request["prompt"]]) if request.get("prompt") else None
        tokens = model.generate(prompt, max_new_tokens=request["count"], do_sample=False, session=session)
        print(json.dumps({"tokens": tokens[0].tolist()}), flush=True)
    except Exception as error:  # whatever it is, the test wants to see it
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
