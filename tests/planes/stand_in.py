"""A small HTTP server in the place of ``plumb serve``, for faults that a real one does not have on demand.

It says where it listens as ``plumb serve`` does, and answers V1 and V2 with its revision's name. An entity called
``sleep-N-...`` takes N milliseconds, ``die-REVISION`` ends the process of that revision in the middle of the request.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from typing import Any

from aiohttp import web

from inference.plane.tether import hold

REVISION = sys.argv[1] if __name__ == "__main__" else ""
ANSWERS = {"ready": True}


def entities_of(content: dict[str, Any]) -> list[str]:
    if "instances" in content:
        return [instance["entity_id"] for instance in content["instances"]]
    return list(next(tensor for tensor in content["inputs"] if tensor["name"] == "entity_id")["data"])


async def predict(request: web.Request) -> web.Response:
    content = await request.json()
    entities = entities_of(content)
    for entity in entities:
        if entity == f"die-{REVISION}":
            os.kill(os.getpid(), signal.SIGKILL)
        if found := re.match(r"sleep-(\d+)", entity):
            await asyncio.sleep(int(found[1]) / 1_000)
        if entity == "bad":
            return web.json_response({"error": "bad entity"}, status=400)
    if "instances" in content:
        reply = {"predictions": [{"entity_id": entity, "by": REVISION} for entity in entities], "revision": REVISION}
    else:
        reply = {"outputs": [], "parameters": {"revision": REVISION}}
    return web.json_response(reply | {"request_id": request.headers["x-request-id"], "path": request.raw_path})


async def ready(_request: web.Request) -> web.Response:
    return web.Response(status=200 if ANSWERS["ready"] else 503)


async def turn(request: web.Request) -> web.Response:
    ANSWERS["ready"] = request.match_info["state"] == "ready"
    return web.Response()


async def main() -> None:
    await asyncio.sleep(float(os.environ.get("STAND_IN_START_S", "0")))
    app = web.Application()
    app.router.add_get("/v2/models/churn/ready", ready)
    app.router.add_get("/v2/models/churn/turn/{state}", turn)
    app.router.add_get("/v1/models/churn", lambda _request: _reply({"name": "churn"}))
    app.router.add_post("/v1/models/churn:predict", predict)
    app.router.add_post("/v2/models/churn/infer", predict)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"plumb: {REVISION} ready at http://127.0.0.1:{runner.addresses[0][1]} (gRPC none)\n")
    sys.stdout.flush()
    await stopped.wait()
    await runner.cleanup()


async def _reply(content: dict[str, Any]) -> web.Response:
    return web.json_response(content)


if __name__ == "__main__":
    hold(grace_s=5)
    asyncio.run(main())
