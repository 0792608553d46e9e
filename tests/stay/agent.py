"""An agent that stays, for the tests: each dispatch says in its payload what to do, a word and its arguments.

Speaks the lines of `qm2_host`'s agents that stay, one JSON object a line, and nothing else on stdout.
"""
import json
import os
import signal
import subprocess
import sys
import time

requests = 0


def say(type_, **members):
    print(json.dumps({"type": type_, **members}), flush=True)


def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def ask(type_, key, **members):
    """A request, and its answer."""
    global requests
    requests += 1
    say(type_, key=key, id=requests, **members)
    heard = hear()
    while heard.get("id") != requests:
        heard = hear()
    return heard.get("ok", {"error": heard.get("error")})


def done(key, payload):
    say("report", key=key, report={"outcome": "completed", "payload": payload})


def work(key, envelope):
    word, _, rest = envelope.get("payload", "").partition(" ")
    if word == "pid":
        say("ack", key=key)
        say("progress", key=key, number=1, payload="half way")
        done(key, str(os.getpid()))
    elif word == "claims":
        taken = ask("claim", key, resource=rest, leaseMs=60_000)
        again = ask("claim", key, resource=rest, leaseMs=60_000)
        renewed = ask("renew", key)
        freed = ask("release", key, tokens=[taken["token"]])
        bad = ask("claim", key, resource="no resource", leaseMs=60_000)
        same = taken["token"] == again["token"] == renewed[0]["token"]
        done(key, json.dumps({"same": same, "freed": freed["status"], "bad": bad["error"]["code"]}))
    elif word == "asks":
        done(key, str(ask("ask", key, number=1, text=rest)))
    elif word == "dies" and envelope["attempt"] == 1:
        child = subprocess.Popen(["sleep", "600"])
        with open(rest, "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "leaves":
        child = subprocess.Popen(["sleep", "600"])
        done(key, f"{os.getpid()} {child.pid}")
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "dies":
        done(key, str(os.getpid()))
    elif word == "hangs":
        child = subprocess.Popen(["sleep", "600"])
        with open(rest + ".new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(rest + ".new", rest)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    elif word == "stops":
        open(rest, "w").close()
        heard = hear()
        failed = {"class": "permanent", "code": "stopped", "message": heard["type"]}
        say("report", key=key, report={"outcome": {"failed": failed}})
    elif word == "babbles":
        says = []
        for line in ['{"type":"sing"}', "no JSON", json.dumps({"type": "ack", "key": "c:other:1"})]:
            print(line, flush=True)
            says.append(hear()["message"])
        done(key, "\n".join(says))
    elif word == "floods":
        sys.stdout.write("x" * (17 * 1024 * 1024))
        sys.stdout.flush()
        time.sleep(600)
    else:
        say("report", key=key, report={"outcome": {"failed": {"class": "permanent", "code": "what", "message": word}}})


assert os.environ["QM2_STAY"] == "1"
while True:
    heard = hear()
    if heard["type"] == "dispatch":
        work(heard["key"], heard["envelope"])
