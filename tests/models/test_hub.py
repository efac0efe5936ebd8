"""Models that cannot be had: gated, missing, unreachable, damaged, pickled, not what they should be. Each is told apart."""

import http.server
import json
import shutil
import threading

import pytest

from diffusecli.models.hub import explained
from diffusecli.models.loading import load_model
from diffusecli.models.source import ModelSource
from diffusecli.system.errors import InputError, MachineError
from tests.commands import closed_port, in_turn

REFUSALS = {
    "owner/gated": (403, "GatedRepo"), "owner/missing": (401, "RepoNotFound"), "owner/old": (404, "RevisionNotFound"),
    "owner/down": (503, ""),
}  # fmt: skip


class Hub(http.server.BaseHTTPRequestHandler):
    """Says no as a model hub does: a status and an error code in a header. Of a gated model it tells that it is there."""

    def do_HEAD(self):
        about = self.path.startswith("/api/models")
        name = "/".join(self.path.removeprefix("/api/models").split("/")[1:3])
        status, code = REFUSALS.get(name, (404, "EntryNotFound"))
        body = b""
        if about and code == "GatedRepo":
            status, code, body = 200, "", json.dumps({"_id": "1", "id": name, "gated": "manual"}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD  # noqa: N815 (the server looks for this name)

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


REFUSED = {
    "owner/gated": (2, "is gated. Accept its terms on its hub page"),
    "owner/missing": (2, "is not on the hub. Check the spelling"),
    "owner/old": (2, "has no such revision"),
    "owner/down": (3, "is not cached, and the hub cannot be reached"),
    "smollm2-135m-instrct": (2, "Did you mean 'smollm2-135m-instruct'?"),
    "owner/name/more": (2, "is not a valid name for a hub. Write owner/name"),
}


@pytest.mark.slow
def test_what_a_hub_refuses_is_told_apart(hub, tmp_path):
    commands = [("sample", "--model", name, "--request", "x") for name in REFUSED]
    found = in_turn([], commands, tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub, HF_HOME=str(tmp_path / "hf"))
    for (name, (code, told)), (ended, said) in zip(REFUSED.items(), found, strict=True):
        assert (ended, told in said) == (code, True), (name, said)
        assert "Traceback" not in said


@pytest.mark.slow
def test_no_network_is_the_machines_fault(diffuse, tmp_path):
    """With HF_HUB_OFFLINE set it is that, too: see test_exit_codes."""
    with closed_port() as port:
        endpoint = f"http://127.0.0.1:{port}"
        done = diffuse("sample", "--model", "a/b", "--request", "x", HF_HUB_OFFLINE="0", HF_ENDPOINT=endpoint, HF_HOME=tmp_path)
    assert done.returncode == 3
    assert "the model a/b is not cached, and the hub cannot be reached. Connect once" in done.stderr


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    """A copy of the tiny model to damage."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def refusal(folder):
    with pytest.raises(InputError) as error:
        load_model(ModelSource(str(folder), device="cpu"), print)
    return str(error.value)


def test_pickled_weights_are_not_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch /tmp/opened'\ntR.")
    assert refusal(folder) == (
        f"the model {folder} has no .safetensors weights (pickled weights can run code and are not loaded). "
        "Convert them, or use another revision"
    )


def test_damaged_weights_are_told(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "its weights are damaged" in refusal(folder)


def test_weights_that_are_not_there_are_not_made_up(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layers.1.mlp.up_proj" not in k}, folder / "model.safetensors", {"format": "pt"})
    assert "lacks 1 of its weights (model.layers.1.mlp.up_proj.weight, …). Fetch it again" in refusal(folder)


def test_weights_of_another_shape_are_told(folder):
    change_config(folder, intermediate_size=40)
    assert refusal(folder) == f"the model {folder} has weights with other shapes than in its config.json. Fetch it again"


def test_a_folder_without_a_tokenizer_is_told(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert refusal(folder) == f"the model {folder} has no tokenizer. Its folder must contain a tokenizer.json or tokenizer.model"


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("kind", "told"), [("llama99", "this version of transformers does not support"), ("t5", "is not a causal")]
)
def test_what_is_no_language_model_of_ours_is_told(folder, kind, told):
    change_config(folder, model_type=kind, architectures=["X"])
    assert told in refusal(folder)


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({place!r}).write_text("ran")

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_runs_only_when_asked_for_and_then_it_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(CODE.format(place=str(ran)))
    change_config(folder, model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"})
    assert "If you trust its authors, add --trust-remote-code, or set trust_remote_code: true" in refusal(folder)
    assert not ran.exists()
    said = []
    load_model(ModelSource(str(folder), device="cpu", trust_remote_code=True), said.append)
    assert ran.read_text() == "ran"
    assert said == [f"running Python code that comes with {folder}, because trust_remote_code is set"]


def test_errors_of_ours_pass_through_and_all_others_are_told_by_their_kind():
    with pytest.raises(MachineError, match="as it is"), explained("m"):
        raise MachineError("as it is")
    with (
        pytest.raises(InputError, match=r"^the model m cannot be loaded: ZeroDivisionError: by zero\. Fetch it again$"),
        explained("m"),
    ):
        raise ZeroDivisionError("by zero")
    with pytest.raises(MachineError, match="does not fit into memory"), explained("m"):
        raise RuntimeError("CUDA error: out of memory")
    with pytest.raises(MachineError, match="does not fit into memory"), explained("m"):
        raise MemoryError
