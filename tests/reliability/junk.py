"""Junk for everything that reads a file: valid files with parts replaced and bytes changed, fed to what a command would call.

An example fails when it raises anything but a `DiffuseError`, when it takes longer than `PATIENCE`, and when it writes, runs or
asks for anything outside its own folder (seen through Python's audit events). Failures are counted by where they happened;
of each kind the shortest file is shown. Run `python -m tests.reliability.junk 100000`.
"""

from __future__ import annotations

import base64
import copy
import csv
import gzip
import io
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from diffusecli.models.devices import peak_memory_mb
from diffusecli.system.errors import DiffuseError
from tests.commands import HANG

EXAMPLES = 100_000
PATIENCE = 10.0  # seconds of the processor for one example; templates and patterns may take five
_ALARMS = (signal.SIGVTALRM, signal.SIGALRM)  # of what loops, whatever else the machine does, and of what waits for ever
_SHOWN = 600  # bytes of a reproducer
_BATCH = 500
_HTML_EACH = 100  # an evaluation in so many is drawn as HTML too: it takes longest

PROMPT = {"request": "Say {heads} or {tails}.", "response": [""], "targets": ["{heads}", "{tails}"], "weights": [0.7, 0.3]}
CONFIG = {
    "model": "owner/name", "train_prompts": ["p.json"], "test_prompts": ["p.json"], "output_dir": "out/{model}", "ckpt_dir": "old",
    "load_model": True, "alg_config": {"n_iters": 5, "gamma": 0.1, "early_stop": True, "learning_rate": "1e-4", "max_tokens_per_pass": 10},
    "lora": {"r": 2, "alpha": 4.0, "targets": ["q_proj"]}, "retain": {"weight": 1.0, "prompts": ["p.json"]}, "system": "Be brief.",
    "chat_template": "plain", "chat_template_kwargs": {"enable_thinking": False, "deep": {"a": [1, 2]}}, "seed": 3,
}  # fmt: skip
LOGGED = {
    "doc_id": 0, "doc": {"request": "Say {heads} or {tails}."}, "target": "-", "resps": [["{heads}", "{tails}"]], "filtered_resps": ["{heads}"],
    "arguments": {"gen_args_0": {"arg_0": "Say {heads} or {tails}.", "arg_1": {"do_sample": True, "temperature": 1.0, "until": [], "max_gen_toks": 8}}},
    "filter": "none",
}  # fmt: skip
ITERATION = {
    "iteration": 1, "of": 2, "step": 1, "loss": 1.5, "optimal": 0.6, "kl": {"p.json": 0.9}, "on_target": {"p.json": 0.5},
    "retention_kl": 0.01, "learning_rate": 1e-3, "gradient_norm": 1.0, "tokens": 10, "seconds": 0.5, "memory_mb": 100,
    "test_kl": {"p.json": 0.5}, "test_on_target": {"p.json": 0.5},
}  # fmt: skip
MANIFEST = {
    "model": "owner/name", "model_revision": "main", "adapter_sha256": "0", "exact_kl": {"p.json": 0.1}, "exact_kl_before": {"p.json": 2.0},
    "exact_on_target": {"p.json": 0.9}, "exact_on_target_before": {"p.json": 0.1}, "exact_kl_test": {}, "exact_on_target_test": {},
    "retention_kl": 0.02, "prompt_sha256": {}, "chat": {"system": "Be brief."},
}  # fmt: skip
META = {
    "mode": "lora", "adapter_sha256": "0", "model_revision": "main", "settings": {"temperature": 1.0, "top_k": 0, "stop": ["x"]},
    "file": "gen.lora.json", "format": "json", "prompts": {"p.json": {"alias": "p.json", **PROMPT}}, "system": "Be brief.",
}  # fmt: skip
ANSWERS = ["{heads}"] * 12 + ["{tails}"] * 5 + ["heads", "{edge}\n"]
ADAPTER = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0,
    "target_modules": ["q_proj", "v_proj"], "bias": "none", "use_rslora": False, "use_dora": False, "fan_in_fan_out": False,
    "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "exclude_modules": None, "init_lora_weights": True,
    "layers_to_transform": None, "layers_pattern": None, "inference_mode": True, "megatron_config": None, "auto_mapping": None,
}  # fmt: skip

RAW = {
    "\0deep list": "[" * 5000 + "]" * 5000,
    "\0deep mapping": '{"a":' * 5000 + "1" + "}" * 5000,
    "\0nested": "[" * 150 + "]" * 150,
    "\0digits": "9" * 5000,
    "\0surrogate": r'"a\ud800b"',
    "\0NaN": "NaN",
    "\0infinite": "1e999",
    "\0twice": '{"a": 1, "a": 2}',
    "\0keys": "{" + ", ".join(f'"k{i}": {i}' for i in range(3000)) + "}",
}
"""What no dump of a value gives: it stands for itself until the text is made."""

SCALARS: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"),
    "", " ", "\0", "a\0b", "\ud800", "\ufeff", "\u2028", "é", "e\u0301", "{heads}", "p.json", "..", "../../../etc/passwd", "/etc/passwd",
    "/dev/null", "a" * 300, "x" * 20_000, "{" * 500, "{model}{config}", "1e-4", "nan", "NaN", "true", "%s", "{{ 7 * 7 }}", "=1+1",
    "\x1b[2J", "<script>", "CON", "~", "~/x", "a/" * 200, "(a+)+$", "[", "\\", "https://x/y", "2001-99-99", [], {}, [[]], {"": ""}, [None],
    {"request": "r"}, {"a": {"b": {"c": [1, 2, {"d": None}]}}}, ["a"] * 300, *RAW,
]  # fmt: skip

YAML_TEXTS = [
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{n}: &{n} [{', '.join(['*' + b] * 9)}]\n" for b, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "? &a [x, x, x, x, x, x, x, x]\n: 1\n" + "".join(f"? &{n} [{', '.join(['*' + b] * 8)}]\n: 1\n" for b, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a {b: *a}\n", "- " * 3000, "{a: " * 3000, "[" * 3000, '!!int ""\n', "seed: !!bool maybe\n", "seed: !!float x\n", "seed: !!timestamp x\n",
    "!!set {a, b}\n", "!!omap [a: 1]\n", "!!binary '===='\n", "!!python/object/apply:os.system ['true']\n", "<<: [1, 2]\n", "? [a, b]\n: 1\n",
    "? {a: b}\n: 1\n", "seed: 1:60:99\n", "seed: 0b\n", "seed: 0x_\n", "seed: 2001-99-99\n", "seed: " + "9" * 5000, "%YAML 9.9\n---\na: 1\n", "--- a\n--- b\n",
    "&a *a", "model: '\\ud800'\n", 'model: "\\ud800"\n', "\ufeff", "!<tag:yaml.org,2002:str> x", "a: !!null x\n", "null: null\n1: 2\n1.5: 3\ntrue: 4\n",
]  # fmt: skip
TEMPLATES = [
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "{{ 'a' * 100000000 }}", "{{ 9 ** 9 ** 9 }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages.__class__.__mro__ }}", "{{ raise_exception('no') }}", "{% include 'x' %}",
    "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}", "{{ range(10 ** 12) | list }}", "{{ '%999999999d' % 1 }}", "{% set x = namespace(a=1) %}{{ x.a }}",
    "{{ lipsum(n=10000000) }}", "{{ '\ud800' }}", "{{ (messages | string | list) | map('upper') | join('x' * 1000000) }}", "{% generation %}x{% endgeneration %}",
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """One kind of file: examples of it, how they are changed, and what reads them."""

    name: str
    made: st.SearchStrategy[bytes]
    feed: Callable[[Path, bytes], object]  # a fresh folder and the file's bytes
    share: float  # of all examples


@dataclass
class Outcome:
    """What came of the examples of a kind."""

    kind: str
    examples: int = 0
    refused: int = 0  # with a sentence
    seconds: float = 0.0
    slowest: float = 0.0
    failures: dict[str, tuple[int, bytes, str]] = field(
        default_factory=dict
    )  # where -> how often, the shortest file, what was said

    def failed(self, where: str, content: bytes, said: str) -> None:
        """Count a failure; of each place the shortest file is kept."""
        times, shortest, message = self.failures.get(where, (0, content, said))
        keep = (content, said) if len(content) <= len(shortest) else (shortest, message)
        self.failures[where] = (times + 1, *keep)


class TooSlow(BaseException):
    """An example that was still running after `PATIENCE`; no `except Exception` may swallow it."""


# changing what is valid


@st.composite
def _changed(draw: Any, value: Any) -> Any:
    """The value with one to three of its parts replaced, removed, doubled or renamed by junk."""
    found = copy.deepcopy(value)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = list(_places(found))
        if not places:
            return draw(_junk())
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        way = draw(st.sampled_from(["replace"] * 5 + ["remove", "rename", "swap", "repeat"]))
        if way == "replace":
            holder[key] = copy.deepcopy(draw(_junk()))
        elif way == "remove":
            del holder[key]
        elif way == "rename" and isinstance(holder, dict):
            holder[str(draw(st.sampled_from([s for s in SCALARS if isinstance(s, str)])))] = holder.pop(key)
        elif way == "swap":
            other, there = places[draw(st.integers(0, len(places) - 1))]
            if there in other if isinstance(other, dict) else there < len(other):
                holder[key] = copy.deepcopy(other[there])
        elif isinstance(holder, list):
            holder.extend([holder[key]] * draw(st.sampled_from([1, 30, 1000])))
    return found


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value, as what holds it and its key there."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


@cache
def _junk() -> st.SearchStrategy[Any]:
    """Values that were not expected there."""
    simple = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    nested = st.recursive(
        simple, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=5
    )
    return st.one_of(st.sampled_from(SCALARS), st.sampled_from(SCALARS), nested)


def _text(value: Any) -> bytes:
    """JSON, with what JSON cannot say put in as text."""
    text = json.dumps(value)
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def _battered(draw: Any, content: bytes) -> bytes:
    """Bytes flipped, cut, spliced, repeated and put in."""
    found = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        at, size = draw(st.integers(0, len(found))), draw(st.integers(0, 40))
        way = draw(st.sampled_from(["flip", "cut", "drop", "repeat", "insert", "splice", "poke"]))
        if way == "flip" and at < len(found):
            found[at] ^= 1 << draw(st.integers(0, 7))
        elif way == "cut":
            del found[at:]
        elif way == "drop":
            del found[at : at + size]
        elif way == "repeat":
            found[at:at] = found[at : at + size] * draw(st.sampled_from([1, 5, 300]))
        elif way == "insert":
            found[at:at] = draw(
                st.sampled_from(
                    [b"\0", b"\xff", b"\r", b"\n\n", b'"', b"{", b"[" * 3000, b"\xed\xa0\x80", b"\xef\xbb\xbf", b"9" * 400]
                )
                | st.binary(max_size=12)
            )
        elif way == "splice":
            other = draw(st.integers(0, len(found)))
            found[at : at + size] = found[other : other + size]
        else:
            found[at : at + 8] = struct.pack(
                "<q", draw(st.sampled_from([-1, 0, 1, 255, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, -(2**63)]))
            )
    return bytes(found)


def _json_like(*values: Any) -> st.SearchStrategy[bytes]:
    def made(value: Any) -> st.SearchStrategy[bytes]:
        return st.one_of(_changed(value).map(_text), _changed(value).map(_text), _battered(_text(value)))

    return st.one_of(*map(made, values))


def _yaml_like(value: Any) -> st.SearchStrategy[bytes]:
    def written(changed: Any) -> bytes:
        try:
            return yaml.safe_dump(changed, allow_unicode=True).encode("utf-8", "surrogatepass")
        except yaml.YAMLError:
            return _text(changed)

    whole = yaml.safe_dump(value).encode()
    odd = st.tuples(st.sampled_from(YAML_TEXTS), st.booleans()).map(
        lambda t: t[0].encode("utf-8", "surrogatepass") + (whole if t[1] else b"")
    )
    return st.one_of(_changed(value).map(_text), _changed(value).map(written), _battered(whole), odd, odd.flatmap(_battered))


def _lines_like(values: Sequence[Any]) -> st.SearchStrategy[bytes]:
    def written(changed: Any) -> bytes:
        return b"\n".join(map(_text, changed)) + b"\n" if isinstance(changed, list) else _text(changed)

    return st.one_of(_changed(list(values)).map(written), _battered(written(list(values))))


def _table_like(rows: Sequence[Sequence[str]], separator: str = ",") -> st.SearchStrategy[bytes]:
    def written(changed: Any) -> bytes:
        file = io.StringIO()
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        for row in changed if isinstance(changed, list) else [changed]:
            writer.writerow(row if isinstance(row, list) else [row])
        return file.getvalue().encode("utf-8", "surrogatepass")

    table = [list(row) for row in rows]
    return st.one_of(_changed(table).map(written), _battered(written(table)))


def _safetensors_like(content: bytes) -> st.SearchStrategy[bytes]:
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])

    def written(changed: Any) -> bytes:
        text = _text(changed)
        return struct.pack("<Q", len(text)) + text + content[8 + size :]

    texts = {key: json.loads(value) for key, value in header.get("__metadata__", {}).items() if value.startswith("{")}
    rewritten = _changed(texts).map(
        lambda t: written(
            {
                **header,
                "__metadata__": {
                    **header["__metadata__"],
                    **{k: _text(v).decode("utf-8", "replace") for k, v in (t.items() if isinstance(t, dict) else ())},
                },
            }
        )
    )
    return st.one_of(_changed(header).map(written), _battered(content), *([rewritten] * 2 if texts else []))


# what reads it


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _checks(name: str) -> Callable[[Path, bytes], object]:
    """`diffuse validate`, its two outputs, and what a command makes of a config."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.prompts.config_files import read_config
        from diffusecli.report.tables import prompts_overview
        from diffusecli.verbs.validate import validate

        path = _put(folder, name, content)
        if name != "p.json":
            _put(folder, "p.json", _text(PROMPT))
        with _inside(folder):
            found = validate([Path(name)])
            _shown(prompts_overview(found.prompts))
            json.dumps([found.as_json(), [str(problem) for problem in found.problems]], ensure_ascii=False)
            if name == "c.yaml":
                again = _put(folder, "again.yaml", read_config(path).to_yaml())
                read_config(again)
            return found

    return feed


def _overrides(folder: Path, content: bytes) -> object:
    from diffusecli.prompts.config_files import read_config

    path = _put(folder, "c.yaml", _text(CONFIG))
    text = content.decode("utf-8", "surrogateescape").replace("\0", "")
    return read_config(
        path, [f"{key}={text}" for key in ("seed", "alg_config.n_iters", "chat_template_kwargs.x", "x")[: 1 + len(text) % 4]]
    )


def _run_with(name: str) -> Callable[[Path, bytes], object]:
    """`diffuse evaluate` of a run of which one file is junk, and all its reports."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.verbs.evaluate import evaluate

        files: dict[str, bytes] = {
            "p.json": _text(PROMPT), "run/run.json": _text(MANIFEST), "run/prompts.json": _text({"p.json": {"alias": "p.json", **PROMPT}}),
            "run/metrics.jsonl": _text(ITERATION) + b"\n", "run/gen.lora.json": _text({"p.json": ANSWERS}), "run/gen.untuned.json": _text({"p.json": ["{tails}"] * 9}),
            "run/config.yaml": yaml.safe_dump({**CONFIG, "load_model": False}).encode(), "run/gen.lora.meta.json": _text(META),
        }  # fmt: skip
        if name.startswith("run/gen.lora.") and "meta" not in name:
            del files["run/gen.lora.json"], files["run/gen.lora.meta.json"]
        for file, text in {**files, name: content}.items():
            _put(folder, file, text)
        with _inside(folder):
            return _reports(evaluate([Path("run")]), len(content))

    return feed


def _answers_in(ending: str) -> Callable[[Path, bytes], object]:
    """`diffuse evaluate FILE --prompt`."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.verbs.evaluate import Question, evaluate

        prompt, path = _put(folder, "p.json", _text(PROMPT)), _put(folder, f"answers{ending}", content)
        with _inside(folder):
            return _reports(evaluate([path], Question(prompt=prompt)), len(content))

    return feed


def _reports(found: Any, number: int) -> object:
    from diffusecli.report import data
    from diffusecli.report.histogram import Showing
    from diffusecli.report.html import html_report
    from diffusecli.report.markdown import as_markdown
    from diffusecli.report.summary import evaluation

    _shown(evaluation(found, Showing(24, None), verbose=True))
    data.as_json(found).encode()
    data.as_csv(found).encode()
    as_markdown(found).encode()
    if number % _HTML_EACH == 0:
        html_report(found).encode()
    return found


def _shown(renderable: Any) -> None:
    from rich.console import Console

    Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace"), width=80).print(renderable)


def _tables(ending: str) -> Callable[[Path, bytes], object]:
    """`diffuse init-prompt --from`, one prompt and a folder of them."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.prompts.request_wording import Wording
        from diffusecli.prompts.weighing import Reading
        from diffusecli.verbs.init_prompt import choose, prompts_from, write_texts

        path = _put(folder, f"table{ending}", content)
        grouped = ending != ".txt" and len(content) % 2 == 0
        columns = {} if ending == ".txt" else {"column": "answer"}
        reading = Reading(**columns, count=True, group_by=("region", "year") if grouped else ())  # type: ignore[arg-type]
        wording = Wording(request="You live in {region}. Say a word." if grouped else None)
        prompts = prompts_from(
            choose({}, {}, path, reading), wording, reading.group_by, folder / ("out" if grouped else "out.json")
        )
        write_texts({path: prompt.to_json() for path, prompt in prompts.items()}, force=True)
        return prompts

    return feed


def _requests(ending: str) -> Callable[[Path, bytes], object]:
    """`diffuse init-prompt --requests`."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.prompts.families import dice
        from diffusecli.prompts.request_files import read_requests
        from diffusecli.prompts.request_wording import Wording, prompt_from, wording_doubts

        wording = Wording(read_requests([_put(folder, f"requests{ending}", content)]), form=True)
        prompt = prompt_from(dice("d6"), wording)
        wording_doubts(wording, prompt)
        return prompt

    return feed


def _journals(folder: Path, content: bytes) -> object:
    from diffusecli.prompts.prompt import Prompt
    from diffusecli.runs.journal import Journal

    path = _put(folder, "gen.lora.partial.jsonl", content)
    prompt = Prompt.model_validate({**PROMPT, "alias": "p.json"})
    for _ in range(2):
        journal = Journal(path, {"mode": "lora"})
        journal.add(prompt, Counter({"{heads}": 2}), 3)
    again = Journal(path, {"mode": "lora"})
    if not journal.aside and again.of(prompt) != journal.of(prompt):
        raise AssertionError("what was added is not read again")
    return again


def _checkpoints(folder: Path, content: bytes) -> object:
    from diffusecli.training.checkpoints import load_progress

    return load_progress(_put(folder, "run/checkpoint-3/state.safetensors", content).parent, {"seed": 3})


def _retained(folder: Path, content: bytes) -> object:
    from diffusecli.training import retention

    return retention._read(_put(folder, "cache.safetensors", content))


def _adapters(name: str) -> Callable[[Path, bytes], object]:
    """An adapter put on a tiny model that is made anew for each."""

    def feed(folder: Path, content: bytes) -> object:
        import torch

        from diffusecli.models.loading import LoadedModel
        from diffusecli.models.lora import load_adapter

        whole = {"adapter_config.json": _text(ADAPTER), "adapter_model.safetensors": _adapter_weights()}
        for file, text in {**whole, name: content}.items():
            _put(folder, file, text)
        base = LoadedModel("", copy.deepcopy(_tiny_model()), None, "")
        load_adapter(base, folder)
        with torch.no_grad():
            return base.model(torch.tensor([[3, 4, 5]])).logits

    return feed


def _model_folders(name: str) -> Callable[[Path, bytes], object]:
    """The files of a model's folder beside its weights."""

    def feed(folder: Path, content: bytes) -> object:
        from diffusecli.models.chat import ChatSettings
        from diffusecli.models.encoding import encode_prompt
        from diffusecli.models.loading import load_chat, load_shape
        from diffusecli.models.source import ModelSource
        from diffusecli.prompts.prompt import Prompt

        for file, text in {**_tiny_folder(), name: content}.items():
            _put(folder, f"m/{file}", text)
        if name == "config.json":
            return load_shape(ModelSource(str(folder / "m")), _silent)
        chat = load_chat(ModelSource(str(folder / "m"), chat=ChatSettings(system="Be brief.")), _silent)
        return encode_prompt(Prompt.model_validate({**PROMPT, "alias": "p.json"}), chat)

    return feed


def _templates(folder: Path, content: bytes) -> object:
    from diffusecli.models.chat import Chat, ChatSettings, read_template
    from diffusecli.models.encoding import encode_prompt
    from diffusecli.prompts.prompt import Prompt

    path = _put(folder, "template.jinja", content)
    chat = Chat(_tiny_tokenizer(), settings=ChatSettings(read_template(str(path)), {"x": 1}, "Be brief."))
    encoded = encode_prompt(Prompt.model_validate({**PROMPT, "alias": "p.json"}), chat)
    return chat.unused, encoded


def _ggufs(folder: Path, content: bytes) -> object:
    from diffusecli.models.loading import load_chat, load_shape
    from diffusecli.models.source import ModelSource

    path = str(_put(folder, "m.gguf", content))
    return load_shape(ModelSource(path), _silent) if len(content) % 2 else load_chat(ModelSource(path), _silent)


def _silent(_: str) -> None:
    pass


# valid files that take a library to make


@cache
def _tiny_tokenizer() -> Any:
    from tests.tiny import byte_tokenizer

    return byte_tokenizer()


@cache
def _tiny_model() -> Any:
    from tests.tiny import tiny_llama

    return tiny_llama(num_hidden_layers=1)


@cache
def _adapter_weights() -> bytes:
    import torch
    from peft import LoraConfig, get_peft_model

    with tempfile.TemporaryDirectory() as scratch:
        config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        torch.manual_seed(0)
        get_peft_model(copy.deepcopy(_tiny_model()), config).save_pretrained(scratch, save_embedding_layers=False)
        return (Path(scratch) / "adapter_model.safetensors").read_bytes()


@cache
def _tiny_folder() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        _tiny_model().config.save_pretrained(scratch)
        _tiny_tokenizer().save_pretrained(scratch)
        return {path.name: path.read_bytes() for path in Path(scratch).iterdir()}


def _state() -> bytes:
    import torch
    from safetensors.torch import save

    from diffusecli.runs.iteration import Iteration
    from diffusecli.runs.run_dir import STATE_FORMAT
    from diffusecli.training.checkpoints import Progress

    progress = Progress({"seed": 3}, 100, 3, 30, 1.5, {"p.json": [1.0, 0.5]}, 1, Iteration(**ITERATION), {"loss": 1.0})
    moments = {"0.exp_avg": torch.zeros(2, 3), "0.step": torch.tensor(3.0)}
    return bytes(save(moments, {"format": STATE_FORMAT, "progress": json.dumps(asdict(progress))}))


def _retained_answers() -> bytes:
    import torch
    from safetensors.torch import save

    kept = {
        "lengths": torch.tensor([1, 2]),
        "prompt_lengths": torch.tensor([2, 2]),
        "prompt_ids": torch.arange(4),
        "answer_ids": torch.arange(3),
    }
    return bytes(save({**kept, "likeliest": torch.zeros(3, 4).int(), "log_probs": torch.zeros(3, 4), "log_rest": torch.zeros(3)}))


def _gguf() -> bytes:
    from tests.models.test_ggufs import MERGES, write_gguf
    from tests.tiny import tiny_llama

    with tempfile.TemporaryDirectory() as scratch:
        return Path(write_gguf(Path(scratch) / "m.gguf", tiny_llama(259 + len(MERGES), num_hidden_layers=1))).read_bytes()


def _archive(member: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, "<workbook/>")
    return file.getvalue()


def _parquet(rows: Sequence[Sequence[str]]) -> bytes:
    import pandas as pd

    file = io.BytesIO()
    pd.DataFrame(rows[1:], columns=pd.Index(rows[0])).to_parquet(file)
    return file.getvalue()


def kinds() -> list[Kind]:
    """Every kind of file that is read, with valid examples of it."""
    table = [
        ["answer", "region", "year"],
        ["yes", "North/../America", "2001"],
        ["no", "../../x", "2002"],
        ["yes", "/etc/passwd", "a\0b"],
        ["maybe", "é" * 90, ".."],
    ]
    answers = [["answer", "count"], ["{heads}", "3"], ["{tails}", "2"]]
    samples = [["prompt", "text", "count"], ["p.json", "{heads}", "3"], ["p.json", "{tails}", "2"]]
    journal = [{"mode": "lora"}, {"prompt": "p.json", "digest": "0", "counts": {"{heads}": 3}, "tokens": 9}]
    lines = [{"prompt": "p.json", "text": text} for text in ANSWERS[10:]]
    plain = _battered("\n".join(ANSWERS).encode())
    folder = _tiny_folder()
    gguf = _gguf()
    header = len(gguf) - sum(p.numel() * 4 for p in _tiny_model().parameters())
    battered_gguf = st.one_of(
        _battered(gguf),
        _battered(gguf[:header]).map(lambda head: head + gguf[header:]),
        _battered(gguf[:400]).map(lambda head: head + gguf[400:]),
    )
    found = [
        Kind("prompt", _json_like(PROMPT), _checks("p.json"), 15),
        Kind("config", _yaml_like(CONFIG), _checks("c.yaml"), 9),
        Kind("--set", st.one_of(_yaml_like(3), st.binary(max_size=20), _json_like([1, {"a": 2}])), _overrides, 8),
        Kind("samples .json", _json_like({"p.json": ANSWERS}, {"p.json": dict(Counter(ANSWERS))}), _run_with("run/gen.lora.json"), 3),
        Kind("samples .jsonl", _lines_like(lines), _run_with("run/gen.lora.jsonl"), 1),
        Kind("samples .csv", _table_like(samples), _run_with("run/gen.lora.csv"), 2),
        Kind("*.meta.json", _json_like(META), _run_with("run/gen.lora.meta.json"), 2),
        Kind("run.json", _json_like(MANIFEST), _run_with("run/run.json"), 2),
        Kind("prompts.json", _json_like({"p.json": {"alias": "p.json", **PROMPT}}), _run_with("run/prompts.json"), 2),
        Kind("metrics.jsonl", _lines_like([ITERATION, {**ITERATION, "iteration": 2}]), _run_with("run/metrics.jsonl"), 2),
        Kind("config.yaml of a run", _yaml_like(CONFIG), _run_with("run/config.yaml"), 1),
        Kind("answers .txt", plain, _answers_in(".txt"), 2),
        Kind("answers .csv", _table_like(answers), _answers_in(".csv"), 2),
        Kind("answers .tsv", _table_like(answers, "\t"), _answers_in(".tsv"), 1),
        Kind("answers .jsonl", _lines_like([{"answer": text} for text in ANSWERS[9:]]), _answers_in(".jsonl"), 2),
        Kind("answers of lm-eval", _lines_like([LOGGED, {**LOGGED, "filter": "strict"}]), _answers_in(".jsonl"), 2),
        Kind("answers .json", _json_like(ANSWERS[9:], {"{heads}": 3}, [{"answer": "{heads}", "count": 3}]), _answers_in(".json"), 2),
        Kind("answers .parquet", _battered(_parquet(answers)), _answers_in(".parquet"), 1),
        Kind("requests .txt", plain, _requests(".txt"), 1),
        Kind("requests .json", _json_like(["Roll a die.", "Throw a die, 1 to 6."]), _requests(".json"), 1),
        Kind("table .csv", _table_like(table), _tables(".csv"), 5),
        Kind("table .tsv", _table_like(table, "\t"), _tables(".tsv"), 1),
        Kind("table .txt", plain, _tables(".txt"), 3),
        Kind("table .jsonl", _lines_like([dict(zip(table[0], row, strict=True)) for row in table[1:]]), _tables(".jsonl"), 3),
        Kind("table .json", _json_like([dict(zip(table[0], row, strict=True)) for row in table[1:]], {"yes": 3, "no": 1}), _tables(".json"), 2),
        Kind("table .csv.gz", _battered(gzip.compress(b"answer,region,year\nyes,a,2001\nno,b,2002\n")), _tables(".csv.gz"), 1),
        Kind("table .xlsx", _battered(_archive("xl/workbook.xml")), _tables(".xlsx"), 1),
        Kind("table .parquet", _battered(_parquet(table)), _tables(".parquet"), 1),
        Kind("*.partial.jsonl", _lines_like(journal), _journals, 16),
        Kind("state.safetensors", _safetensors_like(_state()), _checkpoints, 16),
        Kind("retention cache", _safetensors_like(_retained_answers()), _retained, 9),
        Kind("adapter_config.json", _json_like(ADAPTER), _adapters("adapter_config.json"), 6),
        Kind("adapter_model.safetensors", _safetensors_like(_adapter_weights()), _adapters("adapter_model.safetensors"), 3),
        Kind("config.json of a model", _json_like(json.loads(folder["config.json"])), _model_folders("config.json"), 2),
        Kind("tokenizer_config.json", _json_like(json.loads(folder["tokenizer_config.json"])), _model_folders("tokenizer_config.json"), 1),
        Kind("tokenizer.json", _json_like(json.loads(folder["tokenizer.json"])), _model_folders("tokenizer.json"), 1),
        Kind("chat template", st.sampled_from(TEMPLATES).map(lambda t: t.encode("utf-8", "surrogatepass")).flatmap(lambda t: st.just(t) | _battered(t)), _templates, 0.2),
        Kind("GGUF", battered_gguf, _ggufs, 9),
    ]  # fmt: skip
    return found


# watching


_WRITES = {
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "shutil.rmtree",
    "shutil.move",
}
_FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}


@dataclass
class Watch:
    """What an example does to the machine, through Python's audit events."""

    allowed: tuple[str, ...] = ()
    active: bool = False
    seen: list[str] = field(default_factory=list)

    def event(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Note what an example may not do; never raises."""
        if not self.active:
            return
        if name in _FORBIDDEN:
            self.seen.append(f"{name} {arguments[0]!r}"[:200])
        elif name == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (
                flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) or set(str(mode)) & set("wax+")
            ):
                self._require_inside("writes", path)
        elif name in _WRITES:
            for path in arguments[: 2 if name in ("os.rename", "os.link", "os.symlink") else 1]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._require_inside(name, path)

    def _require_inside(self, what: str, path: Any) -> None:
        place = os.path.realpath(os.fsdecode(path))
        own = (
            Path(place).name.startswith("tmp") and Path(place).parent == Path(tempfile.gettempdir()).resolve()
        )  # of Python's tempfile
        if not own and not place.startswith(self.allowed) and place != os.devnull:
            self.seen.append(f"{what} {place}")


_watch = Watch()


@cache
def _watching() -> Watch:
    """The one watch of this process: an audit hook can never be taken off."""
    sys.addaudithook(_watch.event)
    return _watch


def _ring(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlow


def try_kind(kind: Kind, examples: int, scratch: Path) -> Outcome:
    """Feed so many examples; the same ones each time."""
    outcome, watch = Outcome(kind.name), _watching()

    def once(content: bytes) -> None:
        folder = scratch / f"{outcome.examples}"
        folder.mkdir()
        _try(kind, content, folder, outcome, watch)
        shutil.rmtree(folder, ignore_errors=True)

    for batch in range(0, examples, _BATCH):  # Hypothesis remembers what it has drawn, and gets slow over very many
        run = settings(
            max_examples=min(_BATCH, examples - batch), database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(seed(batch)(given(kind.made)(once)))  # fmt: skip
        run()
    return outcome


def _try(kind: Kind, content: bytes, folder: Path, outcome: Outcome, watch: Watch) -> None:
    before = [signal.signal(number, _ring) for number in _ALARMS]
    watch.allowed, watch.seen, watch.active = (str(folder.resolve()),), [], True
    started = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        signal.setitimer(signal.ITIMER_REAL, HANG)
        kind.feed(folder, content)
    except DiffuseError as error:
        outcome.refused += 1
        if not str(error).strip():
            outcome.failed("says nothing", content, repr(error))
    except TooSlow:
        outcome.failed(f"TooSlow after {PATIENCE:g} s in {_where()}", content, "")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # libraries in Rust panic with an exception of their own
        outcome.failed(f"{type(error).__name__} in {_where()}", content, str(error)[:300])
    finally:
        for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        watch.active = False
        for number, handler in zip(_ALARMS, before, strict=True):
            signal.signal(number, handler)
    took = time.perf_counter() - started
    outcome.examples, outcome.seconds, outcome.slowest = outcome.examples + 1, outcome.seconds + took, max(outcome.slowest, took)
    for what in dict.fromkeys(watch.seen):
        outcome.failed(f"outside its folder: {what}", content, "")


def _where() -> str:
    """The last place in our own code that the error came through, and the last of all."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    ours = [frame for frame in frames if "/diffusecli/" in frame.filename]
    return " … ".join(dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno}" for frame in [*ours[-1:], *frames[-1:]]))


def fuzz(examples: int, only: Sequence[str] = (), tell: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Examples of every kind, shared out by weight."""
    chosen = [kind for kind in kinds() if not only or any(part in kind.name for part in only)]
    total = sum(kind.share for kind in chosen)
    found: list[Outcome] = []
    memory = Path("/dev/shm")  # noqa: S108 (a folder of our own below it): a disk would take longer than the readers
    with tempfile.TemporaryDirectory(prefix="junk.", dir=memory if memory.is_dir() else None) as scratch:
        for kind in chosen:
            folder = Path(scratch) / str(len(found))
            folder.mkdir()
            found.append(try_kind(kind, max(1, round(examples * kind.share / total)), folder))
            tell(found[-1])
    return found


def main(examples: int = EXAMPLES, only: Sequence[str] = ()) -> None:
    """A row per kind of file, then every failure; exit code 1 when there is any."""
    import torch

    torch.set_num_threads(1)
    print("| kind of file | examples | refused | seconds | slowest | failures |\n|---|---|---|---|---|---|")
    found = fuzz(examples, only, _tell)
    print(f"\n{sum(o.examples for o in found)} examples, {sum(o.seconds for o in found):.0f} s, {peak_memory_mb()} MB at the peak")
    if any(outcome.failures for outcome in found):
        sys.exit(1)


def _row(o: Outcome) -> None:
    print(f"| {o.kind} | {o.examples} | {o.refused} | {o.seconds:.1f} | {o.slowest:.2f} | {len(o.failures)} |", flush=True)


def _failures(outcome: Outcome) -> None:
    for where, (times, content, said) in outcome.failures.items():
        shown = base64.b64encode(content).decode() if b"\0" in content else content.decode("utf-8", "backslashreplace")
        more = f" (first {_SHOWN} of {len(content)} bytes)" if len(shown) > _SHOWN else ""
        print(f"\n{outcome.kind}: {where}, {times} times: {said}\n    {shown[:_SHOWN]!r}{more}")


def _tell(outcome: Outcome) -> None:
    _row(outcome)
    _failures(outcome)


if __name__ == "__main__":
    main(int((sys.argv[1:] or [EXAMPLES])[0]), sys.argv[2:])
