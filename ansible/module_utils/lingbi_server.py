"""A model server on its host: its workers and their models, running answers, whether its GPUs are free, how it is tested."""

import concurrent.futures
import errno
import json
import re
import subprocess
import time
import urllib.error
import urllib.request

from ansible.module_utils.lingbi_docker import Failed, run, said

POLL_S = 0.3
ANSWER_S = 5
INSIDE = re.compile(r"^lingbi_requests_inside(?:\{[^}]*\})? (\S+)$", re.M)
LOOKS = 2  # in a row, since at the first look a request may still be on its way from the gateway
LOOK_AT_CONTAINER_S = 1
AT_ONCE = 16


def endpoints(text):
    """host:port of each worker, from the text of a server's env file; pure."""
    values = dict(re.findall(r"^(LINGBI_SERVER_\w+)='?([^'\n]*)'?$", text, re.M))
    first, _, last = values.get("LINGBI_SERVER_PORTS", "").partition("-")
    if not first:
        return []
    return [f"{values['LINGBI_SERVER_ADDRESS']}:{port}" for port in range(int(first), int(last or first) + 1)]


def ask_ready(endpoint):
    """What a worker's /ready says, whatever its status. Raises OSError if it cannot be reached, ValueError for other words."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{endpoint}/ready", timeout=ANSWER_S) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    told = json.loads(body)
    if not isinstance(told, dict):
        raise ValueError(f"{endpoint} answers {told!r}")
    return told


def model(endpoint):
    """The name under which a worker serves its model; empty if it does not tell."""
    try:
        return str(ask_ready(endpoint).get("model") or "")
    except (OSError, ValueError):
        return ""


def models(workers):
    """{endpoint: model} of those of the workers that tell."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        told = dict(zip(workers, pool.map(model, workers), strict=True))
    return {endpoint: name for endpoint, name in told.items() if name}


def inside(text):
    """Requests inside a worker, from the text of its /metrics. Raises ValueError."""
    found = INSIDE.search(text)
    if not found:
        raise ValueError("/metrics has no lingbi_requests_inside")
    return float(found[1])


def ask_inside(endpoint):
    """(requests inside a worker, ""), or (None, why they are not known). A worker that does not listen has none."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{endpoint}/metrics", timeout=ANSWER_S) as response:
            return inside(response.read().decode()), ""
    except (OSError, ValueError) as error:
        cause = getattr(error, "reason", error)
        if getattr(cause, "errno", None) == errno.ECONNREFUSED:
            return 0.0, ""
        return None, f"{endpoint} does not report them: {cause}"


def wait_until_idle(endpoints, wait_s):
    """Wait until no worker has a request inside; how many seconds that took. Raises Failed after wait_s."""
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
    """The sentence for a drain that took too long; pure."""
    unknown = "; ".join(why for _, why in looks if why)
    running = sum(number or 0 for number, _ in looks)
    end = "nothing was stopped: wait longer, or roll out when there are fewer requests"
    if unknown:
        return f"after {seconds:.0f} s (lingbi_drain_wait_s) it is not known whether answers are still running: {unknown}; {end}"
    return f"{running:.0f} answers are still running after {seconds:.0f} s (lingbi_drain_wait_s); {end}"


def processes(container):
    """Ids, on the host, of the processes in a container; none if it does not run."""
    done = run("docker", "top", container, "-eo", "pid")
    return {int(word) for word in done.stdout.split() if word.isdecimal()} if done.returncode == 0 else set()


def computing():
    """{process id: line of nvidia-smi} of the processes that use this host's GPUs. Raises Failed."""
    listed = said("nvidia-smi", "--query-compute-apps=pid,name,used_memory", "--format=csv,noheader", timeout_s=30)
    lines = [line.strip() for line in listed.splitlines() if line.strip()]
    return {int(line.split(",")[0]): line for line in lines if line.split(",")[0].strip().isdecimal()}


def wait_until_gone(numbers, wait_s):
    """Wait until none of the processes uses a GPU; lines of those that still do after wait_s. Others do not count."""
    deadline = time.monotonic() + wait_s
    while numbers:
        left = [line for number, line in computing().items() if number in numbers]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
    return []


def question(container, port, ready_wait_s):
    """The command that waits for a worker and tests it; started early, it has loaded by the time the worker has."""
    smoke = ("python", "-m", "lingbi.smoke", f"http://127.0.0.1:{port}", "--core", "--json")
    return ("docker", "exec", container, *smoke, f"--wait-ready={ready_wait_s}", "--api-key-file=/run/secrets/api-key")


def ask(container, ports, ready_wait_s, smoke_wait_s):
    """Test all workers at once; the seconds that the slowest one's answers took. Raises Failed with the checks that failed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    askers = {port: subprocess.Popen(question(container, port, ready_wait_s), **pipes) for port in ports}
    try:
        wait_for(askers, container, ready_wait_s + smoke_wait_s)
        return max(judge(port, asker) for port, asker in askers.items())
    finally:
        for asker in askers.values():
            asker.kill()


def wait_for(askers, container, wait_s):
    """Wait until all tests have ended. Raises Failed if they take too long or the container ends."""
    looked = time.monotonic()
    deadline = looked + wait_s
    while any(asker.poll() is None for asker in askers.values()):
        now = time.monotonic()
        if now > deadline:
            raise Failed(f"the smoke test did not end within {wait_s} s (lingbi_ready_wait_s, lingbi_smoke_wait_s)")
        if now > looked + LOOK_AT_CONTAINER_S:
            check_alive(container)
            looked = now
        time.sleep(POLL_S / 3)
    check_alive(container)


def check_alive(container):
    """Raises Failed if the container has ended, even if it was started again."""
    told = said("docker", "inspect", "--format", "{{json .State}} {{.RestartCount}}", container)
    state, restarts = told.rsplit(" ", 1)
    state = json.loads(state)
    if state["Status"] != "running" or int(restarts):
        raise Failed(f"the container ended (exit status {state['ExitCode']}, {restarts} restarts): {state['Status']}")


def judge(port, asker):
    """Seconds that one worker's answers took. Raises Failed with the checks that failed."""
    stdout, stderr = asker.communicate()
    if asker.returncode:
        wrong = [line for line in stderr.splitlines() if line.startswith(("FAIL", "error"))] or stderr.splitlines()[-3:]
        raise Failed(f"worker at port {port}: {'; '.join(wrong)}")
    return sum(check["seconds"] for check in json.loads(stdout.splitlines()[-1])["checks"])
