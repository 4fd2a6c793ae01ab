"""What a person's browser meets at a URL whose app sleeps: Chromium, told what to do by ChromeDriver.

browser.py CHROMIUM CHROMEDRIVER BASE-URL HOST:PORT   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
It may be shown the page for waiting first, which asks again by itself; what counts is where that ends.
"""

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

CHROMIUM, CHROMEDRIVER, BASE = sys.argv[1:4]
PATIENCE = 100
# Nothing but the page: no first-run pages, no calls home, and as root there is no sandbox.
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-proxy-server --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage""".split()
SEEN = """const [visit] = performance.getEntriesByType("navigation");
return [visit.responseStatus, document.title, document.body.innerText]"""


def tell(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["value"]


def visit(session):
    """Where a visit ends: the app's own answer, or the last that was seen."""
    tell("POST", session + "/url", {"url": BASE + "/browser"})
    deadline, waited = time.monotonic() + PATIENCE, False
    status, title, text = 0, "", ""
    while True:
        try:
            status, title, text = tell("POST", session + "/execute/sync", {"script": SEEN, "args": []})
        except urllib.error.HTTPError:
            pass  # between two pages there is none to look at
        if "pod=" in text:
            said = dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
            return f"{status}, {said['method']} of {said['bytes']} bytes{', after the page' if waited else ''}"
        waited = True
        if time.monotonic() > deadline:
            return f"{status}, {title!r}"
        time.sleep(0.1)


with tempfile.TemporaryDirectory() as home:
    driver = subprocess.Popen([CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(line.split()[-1].rstrip(".") for line in driver.stdout if "started successfully on port" in line)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={home}"]}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        opened = tell("POST", f"http://127.0.0.1:{port}/session", wanted)
        session = f"http://127.0.0.1:{port}/session/{opened['sessionId']}"
        print("Chromium", opened["capabilities"]["browserVersion"], "navigation", visit(session), sep="\t", flush=True)
        tell("DELETE", session)
    finally:
        driver.terminate()
        driver.wait()
