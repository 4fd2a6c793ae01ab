"""What Python's HTTP clients meet at a URL whose app sleeps: all at once, one line for each client and kind of request.

clients.py BASE-URL HOST:PORT   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
The second argument is where gRPC calls go.
"""

import asyncio
import os
import sys
import threading
import urllib.error
import urllib.request

# Names are in /etc/hosts, which gRPC's own resolver does not read everywhere; asked for when it is loaded.
os.environ["GRPC_DNS_RESOLVER"] = "native"

import aiohttp
import grpc
import httpx
import requests
import websockets

BASE, GRPC = sys.argv[1:3]
BODY = b"0123456789"
PATIENCE = 100


def chunks():
    yield BODY


def say(client, version, kind, happened):
    # In one piece, or lines of several threads mix.
    sys.stdout.write("\t".join((client, version, kind, happened)) + "\n")
    sys.stdout.flush()


def app(status, text):
    """The app's own answer, with how much of the body it got."""
    said = dict(pair.split("=", 1) for pair in text.split() if "=" in pair)
    return f"{status}, {said['method']} of {said['bytes']} bytes" if "pod" in said else f"{status}, not the app"


def attempt(client, version, kind, act):
    def run():
        try:
            happened = act()
        except Exception as error:  # what a client raises is its answer
            happened = type(error).__name__ + (f" {error.code}" if isinstance(error, urllib.error.HTTPError) else "")
        say(client, version, kind, happened)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def of_requests(**arguments):
    answer = requests.request(url=BASE + "/requests", timeout=PATIENCE, **arguments)
    return app(answer.status_code, answer.text)


def of_httpx(follow=True, **arguments):
    answer = httpx.request(url=BASE + "/httpx", timeout=PATIENCE, follow_redirects=follow, **arguments)
    return app(answer.status_code, answer.text)


def of_urllib(body):
    with urllib.request.urlopen(BASE + "/urllib", data=body, timeout=PATIENCE) as answer:
        return app(answer.status, answer.read().decode())


def of_aiohttp(method, body):
    async def ask():
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            async with session.request(method, BASE + "/aiohttp", data=body) as answer:
                return app(answer.status, await answer.text())

    return asyncio.run(ask())


def of_websockets():
    async def ask():
        url = BASE.replace("http://", "ws://") + "/ws"
        async with websockets.connect(url, open_timeout=PATIENCE) as socket:
            await socket.send("hello")
            return "101, echo" if await socket.recv() == "hello" else "101, no echo"

    return asyncio.run(ask())


def of_grpc(serialized, call):
    with grpc.insecure_channel(GRPC) as channel:
        kind = channel.unary_unary if call == "unary" else channel.stream_unary
        say = kind("/echo.Echo/Say", request_serializer=bytes, response_deserializer=bytes)
        try:
            answer = say(serialized if call == "unary" else iter([serialized]), timeout=PATIENCE)
        except grpc.RpcError as error:
            return error.code().name
        return "OK, echo" if answer == serialized else "OK, no echo"


python = sys.version.split()[0]
threads = [
    attempt("Python requests", requests.__version__, "GET", lambda: of_requests(method="GET")),
    attempt("Python requests", requests.__version__, "POST", lambda: of_requests(method="POST", data=BODY)),
    attempt("Python requests", requests.__version__, "stream", lambda: of_requests(method="POST", data=chunks())),
    attempt("Python httpx, not following", httpx.__version__, "GET", lambda: of_httpx(follow=False, method="GET")),
    attempt("Python httpx", httpx.__version__, "GET", lambda: of_httpx(method="GET")),
    attempt("Python httpx", httpx.__version__, "POST", lambda: of_httpx(method="POST", content=BODY)),
    attempt("Python httpx", httpx.__version__, "stream", lambda: of_httpx(method="POST", content=chunks())),
    attempt("Python urllib", python, "GET", lambda: of_urllib(None)),
    attempt("Python urllib", python, "POST", lambda: of_urllib(BODY)),
    attempt("Python aiohttp", aiohttp.__version__, "GET", lambda: of_aiohttp("GET", None)),
    attempt("Python aiohttp", aiohttp.__version__, "POST", lambda: of_aiohttp("POST", BODY)),
    attempt("Python gRPC", grpc.__version__, "gRPC", lambda: of_grpc(BODY, "unary")),
    attempt("Python gRPC", grpc.__version__, "gRPC stream", lambda: of_grpc(BODY, "stream")),
    attempt("Python websockets", websockets.__version__, "WebSocket", of_websockets),
]
for thread in threads:
    thread.join()
