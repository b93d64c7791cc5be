"""What others make of the same jobs on the same server: the provider's own SDK in threads, and scrapy with files.

Neither keeps a promise that this project is made for, so their figures are a scale, not a contest:

- `sdk`: submits, asks and takes the result. No file, no record of a request before or after it is paid, no cap, no
  rate.
- `scrapy`: the same calls and the file, named by a hash of its URL and not flushed. No record, no cap; a start that is
  repeated pays again.

This file runs in an environment of its own, where those packages are, and imports nothing of this project:

    python benchmarks/peers.py sdk '{"url": "http://127.0.0.1:80", "jobs": 9, "folder": "x", "in_flight": 9, "core": 0}'
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SDK_THREADS = 16
"""With 100 threads the SDK is slower."""


def run_sdk(url: str, jobs: int) -> None:
    """Have `jobs` videos made by the provider's SDK. Nothing is saved: it has no call for that."""
    from segmind import SegmindClient

    client = SegmindClient(api_key="SG_0123456789abcdef", base_url=f"{url}/v1")

    def make(number: int) -> str:
        job = client.submit_async("kling-2", prompt=f"a film of {number} lamps", duration=5)
        return str(job.wait(interval=0.001)["output"])

    with ThreadPoolExecutor(SDK_THREADS) as pool:
        assert all(pool.map(make, range(jobs)))


def run_scrapy(url: str, folder: Path, jobs: int, in_flight: int) -> None:
    """Have `jobs` videos made and downloaded by scrapy's downloader and its pipeline for files."""
    import scrapy
    from scrapy.crawler import CrawlerProcess

    class Films(scrapy.Spider):
        name = "films"

        async def start(self) -> Any:
            for number in range(jobs):
                body = json.dumps({"prompt": f"a film of {number} lamps", "duration": 5})
                headers = {"Content-Type": "application/json"}
                yield scrapy.Request(
                    f"{url}/v2/kling-2", self.ask, method="POST", body=body, headers=headers, dont_filter=True
                )

        def ask(self, response: Any) -> Any:
            request_id = response.json()["request_id"]
            yield scrapy.Request(f"{url}/v2/requests/{request_id}/status", self.take, dont_filter=True)

        def take(self, response: Any) -> Any:
            request_id = response.json()["request_id"]
            yield scrapy.Request(f"{url}/v2/requests/{request_id}", self.fetch, dont_filter=True)

        def fetch(self, response: Any) -> Any:
            yield {"file_urls": [response.json()["output"]]}

    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": in_flight,
            "CONCURRENT_REQUESTS_PER_DOMAIN": in_flight,
            "CONCURRENT_ITEMS": in_flight,
            "DOWNLOAD_DELAY": 0,
            "FILES_STORE": str(folder),
            "ITEM_PIPELINES": {"scrapy.pipelines.files.FilesPipeline": 1},
            "LOG_ENABLED": False,
            "RETRY_ENABLED": False,
            "ROBOTSTXT_OBEY": False,
            "TELNETCONSOLE_ENABLED": False,
        }
    )
    process.crawl(Films)
    process.start()
    files = sum(1 for _ in itertools.islice((folder / "full").iterdir(), jobs + 1))
    assert files == jobs, f"{files} files of {jobs}"


def main(name: str, asked: str) -> None:
    """Measure one peer in this process, imports not counted, and print what `benchmarks.whole_path` prints."""
    arguments = json.loads(asked)
    os.sched_setaffinity(0, {arguments["core"]})
    url, jobs, folder = arguments["url"], arguments["jobs"], Path(arguments["folder"])
    importlib.import_module("segmind" if name == "sdk" else "scrapy.crawler")
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    if name == "sdk":
        run_sdk(url, jobs)
    else:
        run_scrapy(url, folder, jobs, arguments["in_flight"])
    wall_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"jobs_per_s": jobs / wall_s, "cpu_ms_per_job": 1000 * cpu_s / jobs, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
