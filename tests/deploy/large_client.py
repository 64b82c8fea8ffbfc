"""Uploads and downloads a large file by the SDK; prints the seconds of each and its memory."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from zndraw_joblib.client import Api
from zndraw_joblib.client.files import download, upload


def peak() -> float:
    """The most mebibytes that this process had in memory so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    url, token, task, size = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name, Api(url, token) as api:
        path = Path(name, "large")
        with path.open("wb") as file:
            file.write(b"begin")
            file.truncate(int(size) - 3)
            file.seek(0, 2)
            file.write(b"end")
        before = peak()
        began = time.monotonic()
        document = upload(api, task, 1, path)
        uploaded = time.monotonic()
        path.unlink()
        to = download(api, task, "large", Path(name, "copy"))
        downloaded = time.monotonic()
        assert to.stat().st_size == document["size"] == int(size)
        report = {
            "upload_seconds": uploaded - began,
            "download_seconds": downloaded - uploaded,
            "mebibytes_before": before,
            "mebibytes": peak(),
        }
        print(json.dumps(report))


main()
