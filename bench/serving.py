"""`nullscope serve` under load, against the forward pass alone: callers at once, and a tenth of their requests hostile.

A hostile request is a truncated image, a bomb, another type, or a body that trickles and is broken off. Every good one must get
the logit that the command gives, every bad one its reason. `forward` is the detector on inputs that lie in memory, one
thread. Rates are images per second of CPU time (forward: of this process; served: of the server, decoding and HTTP included), so
that the callers, which run here, do not count. `wall` is what the callers saw. `memory` is the server's resident memory after a
tenth of the requests, and at the end.

    python bench/serving.py --model models/ns_net-0 'data/world/test/*/*/*.png'
"""

from __future__ import annotations

import argparse
import glob
import io
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests
from measure import publish
from PIL import Image

from nullscope.prediction import Judge, _Asked, _Input, _Reader

TICKS = os.sysconf("SC_CLK_TCK")


def forward_rate(judge: Judge, files: list[bytes]) -> float:
    """Return the images per CPU second of the forward pass, the median of five rounds."""
    reader = _Reader(judge.detector.transform, judge.facts, judge.patches, None)
    inputs: list[_Input] = reader[[_Asked(data, None) for data in files]]
    rates = []
    for _ in range(6):
        start = time.process_time()
        judge._logits(inputs, [None] * len(inputs))
        rates.append(len(inputs) / (time.process_time() - start))
    return statistics.median(rates[1:])


def hostile(draws: random.Random, files: list[bytes]) -> bytes:
    """Return a file that is no good image."""
    bomb = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).resize((20000, 20000)).save(bomb, "PNG", compress_level=9)
    kinds = [files[0][: len(files[0]) // 2], bomb.getvalue(), b"%PDF-1.7 " * 100, b"", draws.randbytes(20_000)]
    return draws.choice(kinds)


def trickle(port: int) -> None:
    """Begin a request and go away in the middle of its body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as gone:
        kind = "Content-Type: multipart/form-data; boundary=b"
        gone.sendall(f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{kind}\r\nContent-Length: 9999\r\n\r\n".encode())
        for letter in b"--b\r\nContent-":
            gone.sendall(bytes([letter]))
            time.sleep(0.02)


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def megabytes_of(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return next(int(line.split()[1]) / 1e3 for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="pattern of image files")
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--sample", type=int, default=64, help="images of a round of the forward pass")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    files = [Path(path).read_bytes() for path in sorted(glob.glob(options.images))[:200]]
    judge = Judge(options.model, "cpu", anyway=True)
    expected = [verdict.logit for verdict in judge.predict_many(files)]
    forward = forward_rate(judge, files[: options.sample])

    command = ["nullscope", "serve", "--model", str(options.model), "--port", str(options.port), "--anyway"]
    with open(os.devnull, "w") as none:
        server = subprocess.Popen(command, stdout=none, stderr=none)
    url = f"http://127.0.0.1:{options.port}"
    while _get(f"{url}/readyz") != 200:
        time.sleep(0.2)

    draws = random.Random(0)
    bad = [hostile(draws, files) for _ in range(20)]
    plan = [(number, number % 10 == 3) for number in range(options.requests)]
    seconds: list[float] = []
    lost: list[str] = []
    memory = [0.0, 0.0]

    def ask(item: tuple[int, bool]) -> None:
        number, is_bad = item
        if number == options.requests // 10:
            memory[0] = megabytes_of(server.pid)
        if is_bad and number % 50 == 3:
            trickle(options.port)
            return
        data = bad[number % len(bad)] if is_bad else files[number % len(files)]
        start = time.perf_counter()
        while (answer := requests.post(f"{url}/v1/score", files={"files": ("x", data)}, timeout=120)).status_code == 429:
            time.sleep(0.2)
        seconds.append(time.perf_counter() - start)
        (score,) = answer.json()["files"][0]["scores"]
        right = bool(score["refused"]) if is_bad else score["logit"] == expected[number % len(files)]
        if not right:
            lost.append(f"{number}: {answer.text[:200]}")

    before, start = cpu_of(server.pid), time.perf_counter()
    with ThreadPoolExecutor(options.callers) as callers:
        list(callers.map(ask, plan))
    wall, cpu = time.perf_counter() - start, cpu_of(server.pid) - before
    memory[1] = megabytes_of(server.pid)
    server.send_signal(signal.SIGTERM)
    server.wait(40)
    good = sum(not is_bad for _, is_bad in plan)
    row = {
        "requests": len(plan),
        "wrong": len(lost),
        "forward /s": forward,
        "served /s": good / cpu,
        "share": good / cpu / forward,
        "wall /s": good / wall,
        "median s": statistics.median(seconds),
        "p99 s": float(np.quantile(seconds, 0.99)),
        "MB at 10 %": memory[0],
        "MB at end": memory[1],
    }
    print(*lost[:5], sep="\n")
    publish(f"serving-{options.model.name}", [row], callers=options.callers, size=judge.patches.mosaic_px)
    sys.exit(1 if lost else 0)


def _get(url: str) -> int:
    try:
        return requests.get(url, timeout=2).status_code
    except OSError:
        return 0


if __name__ == "__main__":
    main()
