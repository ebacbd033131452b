"""``python -m standin``: run an app folder from a terminal."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from . import hostlog, manifest, principal
from .chaos import Chaos, KillMidJob
from .host import Options, StandInHost
from .hostlog import HostLog
from .process import State
from .times import Times


def parser() -> argparse.ArgumentParser:
    """The command line."""
    arguments = argparse.ArgumentParser(
        "standin",
        description="A stand-in for the Azure Functions host: serves an app folder with a custom handler.",
    )
    add = arguments.add_argument
    add("--app-root", type=Path, default=Path(), help="folder with host.json (default: the current one)")
    add("--port", type=int, default=7071, help="where to listen; 0 for a free port")
    add("--auth", choices=("azure", "coretools"), default="azure", help="check keys, or let all pass")
    add("--easyauth", choices=("off", "on", "swa"), default="off", help="what stands in front of the host")
    add("--secrets", type=Path, help="folder with host.json and <function>.json key files")
    add("--people", type=Path, help="JSON file {name: {id, name, provider, tenant, roles}} for --easyauth")
    add("--env", action="append", default=[], metavar="NAME=VALUE", help="add to the environment")
    add("--no-local-settings", action="store_true", help="do not read local.settings.json")
    add("--no-listeners", action="store_true", help="read no queues, fire no timers")
    add("--trust-forwarded-proto", action="store_true", help="as behind Azure's front end")
    add("--time", action="append", default=[], metavar="NAME=SECONDS", help="change one of the fixed times")
    add("--chaos-start-delay", type=float, default=0.0, metavar="SECONDS")
    add("--chaos-drop-after-send", type=int, default=0, metavar="TIMES")
    add("--chaos-duplicate-delivery", type=int, default=0, metavar="TIMES")
    add("--chaos-kill", metavar="FUNCTION[:SECONDS[:TIMES]]", help="SIGKILL the handler mid-job")
    return arguments


def options(arguments: argparse.Namespace) -> Options:
    """The parsed command line as options."""
    chaos = Chaos(
        arguments.chaos_start_delay, arguments.chaos_drop_after_send, arguments.chaos_duplicate_delivery
    )
    if arguments.chaos_kill:
        function, *rest = arguments.chaos_kill.split(":")
        after = float(rest[0]) if rest else 0.0
        chaos.kill_mid_job.append(KillMidJob(function, after, int(rest[1]) if len(rest) > 1 else 1))
    environment = dict(os.environ)
    for pair in arguments.env:
        name, _, value = pair.partition("=")
        environment[name] = value
    people = {"ada": principal.ADA}
    if arguments.people:
        for name, person in json.loads(arguments.people.read_text()).items():
            person["roles"] = tuple(person.get("roles", ()))
            people[name] = principal.Person(**person)
    return Options(
        root=arguments.app_root.resolve(),
        port=arguments.port,
        environment=environment,
        local_settings=not arguments.no_local_settings,
        auth=arguments.auth,
        easyauth=arguments.easyauth,
        secrets=arguments.secrets,
        trust_forwarded_proto=arguments.trust_forwarded_proto,
        people=people,
        listeners=not arguments.no_listeners,
        times=Times.parse(arguments.time),
        chaos=chaos,
    )


def print_functions(host: StandInHost) -> None:
    """As ``func start`` does."""
    print("\nFunctions:\n")
    for function in host.app.functions:
        if function.error is not None:
            print(f"\t{function.name}: IN ERROR: {function.error}")
        elif function.kind == "http":
            methods = ",".join(sorted(function.methods)) if function.methods else "ALL"
            print(f"\t{function.name}: [{methods}] {host.url}/{function.template}")
        else:
            print(f"\t{function.name}: {function.trigger.type}")
    print(flush=True)


async def run(chosen: Options, log: HostLog) -> int:
    """Serve until a signal arrives or the host gives up."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with StandInHost(chosen, log) as host:
        print_functions(host)
        ready = asyncio.create_task(announce(host))
        waiting = [asyncio.create_task(ended.wait()), asyncio.create_task(host.stopped.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (ready, *waiting):
            task.cancel()
        return 0 if host.stop_reason is None else 1


async def announce(host: StandInHost) -> None:
    """One line when the handler is up for the first time."""
    await host.process.wait_ready(4 * host.process.initialization_timeout)
    if host.process.state is not State.STOPPED:
        print(f"ready {host.url}", flush=True)


def main() -> int:
    """Entry point; the exit code is 1 when the host gave up and 2 when the app can't be run."""
    chosen = options(parser().parse_args())
    try:
        return asyncio.run(run(chosen, hostlog.to_stdout()))
    except manifest.ManifestError as error:
        print(f"can't run {chosen.root}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
