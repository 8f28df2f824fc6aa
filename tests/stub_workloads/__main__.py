"""`command` of the spec is a list of words: succeed | fail | wait | save | leave-behind | crowd | code."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def write(kind, **values):
    with open(JOB["progress_path"], "ab", buffering=0) as file:
        file.write((json.dumps({"t": time.time(), "kind": kind, **values}) + "\n").encode())


def leave_behind():
    """A detached actor, and a placement group, both outlive their driver."""
    import ray

    ray.init(log_to_driver=False)

    @ray.remote(num_cpus=0)
    class Leftover:
        def ping(self):
            return 1

    group = ray.util.placement_group([{"T4": 1}], name=JOB["run_id"], lifetime="detached")
    ray.get(group.ready(), timeout=60)
    actor = Leftover.options(name=JOB["run_id"], lifetime="detached").remote()
    ray.get(actor.ping.remote(), timeout=60)


JOB = json.loads(os.environ["RAYWISE_JOB"])
words = JOB["spec"]["command"].split()
print("hello from", JOB["run_id"])
write("phase", phase="starting")
if "wait-to-begin" in words:
    time.sleep(600)
write("phase", phase="running")
if "code" in words:
    import users_own_module

    write("note", message=users_own_module.GREETING)
if "env" in words:
    write("note", message=os.environ.get("USERS_VARIABLE", ""))
if "leave-behind" in words:
    leave_behind()
    write("note", message="left behind")
if "crowd" in words:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(JOB["run_dir"], "pid").write_text(str(child.pid))
    write("note", message="crowded")
if "save" in words:
    request = Path(JOB["progress_path"]).with_name(JOB["run_id"] + ".stop")
    while not request.exists():
        time.sleep(0.05)
    write("note", message="saved")
    sys.exit(143)
if "wait" in words:
    time.sleep(600)
if "fail" in words:
    write("failed", message="no rows", retryable=False)
    print("no rows", file=sys.stderr)
    sys.exit(3)
write("done", outputs={}, metrics={"answer": 42})
