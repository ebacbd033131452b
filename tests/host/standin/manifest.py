"""host.json and the function folders: what an app declares, and what the host refuses."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import routing, timespan

_FUNCTION_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_-]{0,127}$")
_BINDING_NAME = re.compile(r"^(?:[A-Za-z][A-Za-z0-9]{0,127}|\$return)$")
_SETTING = re.compile(r"%([^%]+)%")
_OVERRIDE = "AzureFunctionsJobHost__"
_TRIGGERS = {"httptrigger", "queuetrigger", "timertrigger", "blobtrigger"}
_LEVELS = ("anonymous", "function", "admin")
DEFAULT_FUNCTION_TIMEOUT = 30 * 60.0


class ManifestError(Exception):
    """The app can't be started at all."""


class UnknownSettingError(Exception):
    """A ``%NAME%`` in a binding names no app setting."""


@dataclass(frozen=True)
class QueueOptions:
    """extensions.queues"""

    batch_size: int = 16
    new_batch_threshold: int = 8
    max_polling_interval: float = 60.0
    visibility_timeout: float = 0.0
    max_dequeue_count: int = 5
    base64: bool = True


@dataclass(frozen=True)
class HandlerDescription:
    """customHandler.description, expanded."""

    executable: str
    arguments: str
    """Blank-joined as one string, as the host does: an argument with a blank in it falls apart."""
    working_directory: Path
    errors_only: bool


@dataclass(frozen=True)
class HostConfig:
    """host.json with its overrides applied."""

    handler: HandlerDescription
    proxying: bool
    initialization_timeout: float
    port: int | None
    route_prefix: str
    function_timeout: float | None
    queues: QueueOptions


@dataclass(frozen=True)
class Binding:
    """One entry of a function's ``bindings``."""

    type: str
    direction: str
    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)

    def text(self, key: str) -> str | None:
        """A string property, or none."""
        value = self.properties.get(key)
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class Function:
    """One function folder. ``error`` says why the host would not run it."""

    name: str
    bindings: tuple[Binding, ...] = ()
    error: str | None = None
    disabled: bool = False
    template: str | None = None
    methods: frozenset[str] | None = None

    @property
    def trigger(self) -> Binding:
        """The binding that starts it."""
        return next(binding for binding in self.bindings if binding.type.lower() in _TRIGGERS)

    @property
    def kind(self) -> str:
        """``http``, ``queue``, ``timer`` or ``blob``."""
        return self.trigger.type.lower().removesuffix("trigger")

    @property
    def is_raw_http(self) -> bool:
        """Exactly one httpTrigger in and one http out: the request itself is handed over, no envelope."""
        ins = [binding for binding in self.bindings if binding.direction == "in"]
        outs = [binding for binding in self.bindings if binding.direction == "out"]
        return (
            len(ins) == len(outs) == 1
            and ins[0].type.lower() == "httptrigger"
            and outs[0].type.lower() == "http"
        )

    @property
    def auth_level(self) -> str:
        """Who may call; ``function`` where nothing is said."""
        return (self.trigger.text("authLevel") or "function").lower()


@dataclass(frozen=True)
class App:
    """Everything read from an app folder."""

    root: Path
    config: HostConfig
    functions: tuple[Function, ...]

    @property
    def runnable(self) -> tuple[Function, ...]:
        """The functions without an error, in the order in which routes are tried."""
        return tuple(function for function in self.functions if function.error is None)

    def function(self, name: str) -> Function | None:
        """By name, in any case."""
        return next((f for f in self.runnable if f.name.lower() == name.lower()), None)


def expand(text: str, settings: Mapping[str, str]) -> str:
    """``%NAME%`` by app settings; an unset one becomes empty (host.json's rule)."""
    return _SETTING.sub(lambda found: settings.get(found.group(1), ""), text)


def resolve(text: str, settings: Mapping[str, str]) -> str:
    """``%NAME%`` in a binding: an unset one is an error of that function."""

    def one(found: re.Match[str]) -> str:
        value = settings.get(found.group(1))
        if value is None:
            raise UnknownSettingError(f"'%{found.group(1)}%' does not resolve to a value")
        return value

    return _SETTING.sub(one, text)


def load(root: Path, settings: Mapping[str, str]) -> App:
    """Read an app folder. ``settings`` is the host's environment."""
    config = load_host_json(root, settings)
    return App(root, config, load_functions(root, config.route_prefix, settings))


def load_host_json(root: Path, settings: Mapping[str, str]) -> HostConfig:
    """host.json, its overrides in the environment, and the defaults."""
    path = root / "host.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"host.json: {error}") from error
    if not isinstance(raw, dict) or raw.get("version") != "2.0":
        raise ManifestError('host.json: "version" must be "2.0"')
    for name, value in settings.items():
        if name.startswith(_OVERRIDE):
            _override(raw, re.split(r"__|:", name[len(_OVERRIDE) :]), value)

    custom = _section(raw, "customHandler")
    description = _section(custom, "description")
    executable = expand(str(_get(description, "defaultExecutablePath") or ""), settings)
    if not executable:
        raise ManifestError("host.json: customHandler.description.defaultExecutablePath is required")
    proxying = _flag(_get(custom, "enableProxyingHttpRequest"), default=False)
    if _flag(_get(custom, "enableForwardingHttpRequest"), default=False) and not proxying:
        raise ManifestError("host.json: enableForwardingHttpRequest is not modelled by this stand-in")
    if _get(_section(custom, "http"), "routes"):
        raise ManifestError("host.json: customHandler.http.routes: only one configuration source is allowed")
    if _get(raw, "retry"):
        raise ManifestError("host.json: retry is not modelled by this stand-in")

    working_directory = root / expand(str(_get(description, "workingDirectory") or ""), settings)
    worker_directory = root / expand(str(_get(description, "workerDirectory") or ""), settings)
    if not os.path.isabs(executable) and (worker_directory / executable).is_file():
        executable = str((worker_directory / executable).resolve())

    words: list[str] = []
    for key in ("arguments", "workerArguments"):
        words += [expand(word, settings) for word in _list(_get(description, key))]
        default_path = _get(description, "defaultWorkerPath")
        if key == "arguments" and default_path:
            words.append(f'"{expand(str(default_path), settings)}"')

    http = _section(_section(raw, "extensions"), "http")
    prefix = _get(http, "routePrefix")
    timeout = _get(raw, "functionTimeout")
    port = _get(custom, "port")
    return HostConfig(
        handler=HandlerDescription(
            executable,
            " ".join(words),
            working_directory,
            _flag(_get(description, "useStdErrorStreamForErrorsOnly"), default=True),
        ),
        proxying=proxying,
        initialization_timeout=_span(_get(custom, "initializationTimeout"), 30.0, "initializationTimeout"),
        port=int(port) if port else None,
        route_prefix=("api" if prefix is None else str(prefix)).strip("/"),
        function_timeout=_function_timeout(timeout),
        queues=_queues(_section(_section(raw, "extensions"), "queues")),
    )


def _function_timeout(value: Any) -> float | None:
    if value is None:
        return DEFAULT_FUNCTION_TIMEOUT
    length = _span(value, DEFAULT_FUNCTION_TIMEOUT, "functionTimeout")
    if length < 0:
        return None
    if length < 1:
        raise ManifestError("host.json: functionTimeout must be at least one second")
    return length


def _queues(section: Mapping[str, Any]) -> QueueOptions:
    batch = int(_get(section, "batchSize") or 16)
    if not 1 <= batch <= 32:
        raise ManifestError("host.json: queues.batchSize must be between 1 and 32")
    threshold = _get(section, "newBatchThreshold")
    encoding = str(_get(section, "messageEncoding") or "base64").lower()
    if encoding not in ("base64", "none"):
        raise ManifestError(f"host.json: queues.messageEncoding: {encoding}")
    polling = _span(_get(section, "maxPollingInterval"), 60.0, "queues.maxPollingInterval")
    if polling < 0.1:
        raise ManifestError("host.json: queues.maxPollingInterval must be at least 100 ms")
    max_dequeue = _get(section, "maxDequeueCount")
    return QueueOptions(
        batch,
        int(threshold) if threshold is not None else (batch // 2) * (os.cpu_count() or 1),
        polling,
        _span(_get(section, "visibilityTimeout"), 0.0, "queues.visibilityTimeout"),
        int(max_dequeue) if max_dequeue is not None else 5,
        encoding == "base64",
    )


def load_functions(root: Path, prefix: str, settings: Mapping[str, str]) -> tuple[Function, ...]:
    """All folders with a function.json, in route order: by name, in any case."""
    found = [
        _load_function(folder, prefix, settings)
        for folder in root.iterdir()
        if folder.is_dir() and (folder / "function.json").is_file()
    ]
    found.sort(key=lambda function: function.name.lower())
    return tuple(_refuse_conflicts(found))


def _load_function(folder: Path, prefix: str, settings: Mapping[str, str]) -> Function:
    name = folder.name
    if not _FUNCTION_NAME.match(name) or name.lower() == "host":
        return Function(name, error=f"'{name}' is not a valid function name")
    try:
        raw = json.loads((folder / "function.json").read_text(encoding="utf-8-sig"))
    except ValueError as error:
        return Function(name, error=f"function.json: {error}")
    bindings: list[Binding] = []
    for item in raw.get("bindings") or []:
        binding = Binding(
            str(item.get("type", "")),
            str(item.get("direction", "in")).lower(),
            str(item.get("name", "")),
            {k: v for k, v in item.items() if k not in ("type", "direction", "name")},
        )
        if not _BINDING_NAME.match(binding.name):
            return Function(name, error=f"the binding name '{binding.name}' is invalid")
        bindings.append(binding)
    triggers = [binding for binding in bindings if binding.type.lower().endswith("trigger")]
    if len(triggers) != 1:
        return Function(name, error=f"{len(triggers)} triggers; exactly one is needed")
    if triggers[0].type.lower() not in _TRIGGERS:
        return Function(name, error=f"{triggers[0].type} is not modelled by this stand-in")
    try:
        bindings = [_resolved(binding, settings) for binding in bindings]
    except UnknownSettingError as error:
        return Function(name, error=str(error))

    flag = settings.get(f"AzureWebJobs.{name}.Disabled") or ""
    disabled = flag.lower() in ("true", "1") or raw.get("disabled") is True
    function = Function(name, tuple(bindings), disabled=disabled)
    problem = _trigger_problem(function.trigger)
    if problem:
        return Function(name, error=problem)
    if function.kind != "http":
        return function
    route = (function.trigger.text("route") or "").strip()
    if route.lower().startswith(("admin", "runtime")):
        return Function(name, error=f"the route '{route}' begins with a reserved word")
    template = "/".join(part for part in (prefix, (route or name).strip("/")) if part)
    try:
        routing.parse(template)
    except ValueError as error:
        return Function(name, error=str(error))
    listed = function.trigger.properties.get("methods")
    methods = frozenset(str(method).upper() for method in listed) if listed else None
    return Function(name, tuple(bindings), disabled=disabled, template=template, methods=methods)


def _resolved(binding: Binding, settings: Mapping[str, str]) -> Binding:
    properties = {
        key: resolve(value, settings) if isinstance(value, str) and key != "connection" else value
        for key, value in binding.properties.items()
    }
    return Binding(binding.type, binding.direction, binding.name, properties)


def _trigger_problem(trigger: Binding) -> str | None:
    match trigger.type.lower():
        case "queuetrigger" if not trigger.text("queueName"):
            return "queueTrigger needs a queueName"
        case "timertrigger" if not trigger.text("schedule"):
            return "timerTrigger needs a schedule"
        case "httptrigger" if (trigger.text("authLevel") or "function").lower() not in _LEVELS:
            return f"authLevel '{trigger.text('authLevel')}' is not one of {', '.join(_LEVELS)}"
    return None


def _refuse_conflicts(functions: list[Function]) -> list[Function]:
    """The same route with overlapping methods: the second function is in error."""
    kept: list[Function] = []
    for function in functions:
        rival = next((other for other in kept if _conflict(other, function)), None)
        if rival is not None:
            function = Function(
                function.name, function.bindings, f"the route conflicts with the one of '{rival.name}'"
            )
        kept.append(function)
    return kept


def _conflict(one: Function, two: Function) -> bool:
    if one.error or two.error or one.template is None or two.template is None:
        return False
    if one.template.lower() != two.template.lower():
        return False
    return one.methods is None or two.methods is None or bool(one.methods & two.methods)


def _get(section: Mapping[str, Any], key: str) -> Any:
    return next((value for name, value in section.items() if name.lower() == key.lower()), None)


def _section(section: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = _get(section, key)
    return value if isinstance(value, dict) else {}


def _flag(value: Any, default: bool) -> bool:
    if value is None:
        return default
    return value if isinstance(value, bool) else str(value).lower() == "true"


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        value = json.loads(value) if value.strip() else []
    return [str(item) for item in value or []]


def _span(value: Any, default: float, name: str) -> float:
    if value is None:
        return default
    try:
        return timespan.seconds(str(value))
    except ValueError as error:
        raise ManifestError(f"host.json: {name}: {error}") from error


def _override(tree: dict[str, Any], keys: list[str], value: str) -> None:
    for key in keys[:-1]:
        name = next((name for name in tree if name.lower() == key.lower()), key)
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            return
        tree = below
    name = next((name for name in tree if name.lower() == keys[-1].lower()), keys[-1])
    tree[name] = value
