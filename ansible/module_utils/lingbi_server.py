"""A model server on its host: whether it answers somebody, whether its GPUs are free, and what it is asked."""

import errno
import json
import re
import subprocess
import time
import urllib.request

from ansible.module_utils.lingbi_docker import Failed, run, said

POLL_S = 0.3
ANSWER_S = 5
INSIDE = re.compile(r"^lingbi_requests_inside(?:\{[^}]*\})? (\S+)$", re.M)
LOOKS = 2  # in a row: a request may be under way from the gateway to the server at the first
LOOK_AT_CONTAINER_S = 1


def inside(text):
    """Requests inside a worker, by its /metrics."""
    found = INSIDE.search(text)
    if not found:
        raise ValueError("/metrics has no lingbi_requests_inside")
    return float(found[1])


def ask_inside(endpoint):
    """(requests inside a worker, ""); (None, why) where that is not known. Where nobody listens there are none."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{endpoint}/metrics", timeout=ANSWER_S) as response:
            return inside(response.read().decode()), ""
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if getattr(cause, "errno", None) == errno.ECONNREFUSED:
            return 0.0, ""
        return None, f"{endpoint} does not tell: {cause}"


def wait_until_idle(endpoints, wait_s):
    """Seconds until no worker had a request inside. Raises Failed beyond wait_s."""
    begun, idle = time.monotonic(), 0
    while True:
        looks = [ask_inside(endpoint) for endpoint in endpoints]
        idle = idle + 1 if all(number == 0 for number, _ in looks) else 0
        seconds = round(time.monotonic() - begun, 2)
        if idle >= LOOKS:
            return seconds
        if idle == 0 and seconds > wait_s:
            raise Failed(still_busy(looks, seconds))
        time.sleep(POLL_S)


def still_busy(looks, seconds):
    """What is told when a drain took too long; pure."""
    unknown = "; ".join(why for _, why in looks if why)
    running = sum(number or 0 for number, _ in looks)
    end = "nothing was stopped: wait longer, or roll when fewer people ask"
    if unknown:
        return (
            f"after {seconds:.0f} s (lingbi_drain_wait_s) it is not known whether answers still run: {unknown}; {end}"
        )
    return f"{running:.0f} answers still run after {seconds:.0f} s (lingbi_drain_wait_s); {end}"


def processes(container):
    """Numbers of the processes in a container, as the host counts them; none where it does not run."""
    done = run("docker", "top", container, "-eo", "pid")
    return {int(word) for word in done.stdout.split() if word.isdecimal()} if done.returncode == 0 else set()


def computing():
    """{process: line} of those that compute on this host's GPUs, as nvidia-smi tells them."""
    listed = said("nvidia-smi", "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader", timeout_s=30)
    lines = [line.strip() for line in listed.splitlines() if line.strip()]
    return {int(line.split(",")[0]): line for line in lines if line.split(",")[0].strip().isdecimal()}


def wait_until_gone(numbers, wait_s):
    """Lines of those of the processes that still compute after wait_s; empty once none does. Others do not count."""
    deadline = time.monotonic() + wait_s
    while numbers:
        left = [line for number, line in computing().items() if number in numbers]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
    return []


def question(container, port, ready_wait_s):
    """The command that waits for a worker and asks it; begun at once, it has loaded before the worker has."""
    smoke = ("python", "-m", "lingbi.smoke", f"http://127.0.0.1:{port}", "--core", "--json")
    return ("docker", "exec", container, *smoke, f"--wait-ready={ready_wait_s}", "--api-key-file=/run/secrets/api-key")


def ask(container, ports, ready_wait_s, smoke_wait_s):
    """Ask all workers at once; seconds from the moment that all were ready. Raises Failed with what was wrong."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    askers = {port: subprocess.Popen(question(container, port, ready_wait_s), **pipes) for port in ports}
    try:
        wait_for(askers, container, ready_wait_s + smoke_wait_s)
        return max(judge(port, asker) for port, asker in askers.items())
    finally:
        for asker in askers.values():
            asker.kill()


def wait_for(askers, container, wait_s):
    """Wait until all askers have ended, while the container runs as it was started."""
    looked = time.monotonic()
    deadline = looked + wait_s
    while any(asker.poll() is None for asker in askers.values()):
        now = time.monotonic()
        if now > deadline:
            raise Failed(f"the questions did not end within {wait_s} s (lingbi_ready_wait_s, lingbi_smoke_wait_s)")
        if now > looked + LOOK_AT_CONTAINER_S:
            check_alive(container)
            looked = now
        time.sleep(POLL_S / 3)
    check_alive(container)


def check_alive(container):
    """Raises Failed where the container has ended, even if it was started again."""
    told = said("docker", "inspect", "--format", "{{json .State}} {{.RestartCount}}", container)
    state, restarts = told.rsplit(" ", 1)
    state = json.loads(state)
    if state["Status"] != "running" or int(restarts):
        raise Failed(f"the container ended (exit status {state['ExitCode']}, {restarts} restarts): {state['Status']}")


def judge(port, asker):
    """Seconds that the questions to one worker took. Raises Failed with the checks that failed."""
    stdout, stderr = asker.communicate()
    if asker.returncode:
        wrong = [line for line in stderr.splitlines() if line.startswith(("FAIL", "error"))] or stderr.splitlines()[-3:]
        raise Failed(f"worker at port {port}: {'; '.join(wrong)}")
    return sum(check["seconds"] for check in json.loads(stdout.splitlines()[-1])["checks"])
