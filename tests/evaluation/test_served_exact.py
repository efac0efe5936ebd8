"""`evaluate --exact --engine openai`: exact figures from vLLM's and llama.cpp's routes, limits from OpenAI's, none from others."""

import json
from pathlib import Path

import numpy as np
import pytest

import diffusecli as diffuse
from diffusecli.evaluation.metrics import exact_figures
from diffusecli.evaluation.served_exact import measure_served
from diffusecli.models.chat import ChatSettings
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel
from diffusecli.prompts.prompt import Prompt
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.runs.run_dir import RunDir
from diffusecli.sampling.connection import Service
from diffusecli.system.errors import InputError, MachineError
from diffusecli.training.loss import score, target_log_probs
from diffusecli.training.questions import figures_of
from diffusecli.training.rows_pass import RowsPass
from tests.commands import closed_port
from tests.models.llama_cpp import served
from tests.models.test_gguf_out import tokenizer_like_gpt2, write
from tests.sampling.served_models import OpenAi, Silent, Vllm
from tests.sampling.test_llama_server import letters_model

pytest.importorskip("openai")

ASKED = {
    "several tokens": {"targets": ["HE", "di", "cat", "H", "longer"], "weights": [4, 3, 2, 1, 1]},
    "shared first tokens": {"targets": ["1", "10", "100", "2"]},
    "spellings": {"targets": [["Hi", "hi", " Hi"], "no"]},
    "a prefix of every answer": {"targets": ["x", "y"], "response": ["{}: ".format("So"), ""]},
    "answers that go on": {"targets": ["di", "He"], "eos": False},
    "a system text": {"targets": ["a", "b"], "system": "Be brief."},
    "a conversation": {"targets": ["c", "d"], "messages": [{"role": r, "content": c} for r, c in (("user", "Hello."), ("assistant", "Hi."), ("user", "A letter?"))]},
    "not ASCII": {"targets": ["é", "日本", "\n"]},
}  # fmt: skip
EXACT = {"vllm": 1e-4, "llama": 1e-2}
"""Nats that a target's log-probability may differ. llama.cpp computes with 16-bit weights."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model, and the file of the same weights: writing rounds them."""
    made = letters_model(initializer_range=0.15)  # as even as trained models: llama.cpp rounds large activations
    return LoadedModel("tiny", made, tokenizer_like_gpt2(), "r"), write(tmp_path_factory.mktemp("gguf") / "m", made)


@pytest.fixture(scope="module")
def llama(model):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    with served(model[1], context=256, slots=4) as running:
        yield f"{running.address}/v1"


@pytest.fixture(scope="module")
def vllm(model):
    with Vllm(model[0].model, model[0].tokenizer) as running:
        yield running.url


@pytest.fixture
def server(request, llama, vllm):
    return {"llama": llama, "vllm": vllm}[request.param]


each_server = pytest.mark.parametrize("server", EXACT, indirect=True)


def prompt(alias="p.json", **fields):
    asked = {} if "messages" in fields else {"request": "Say a letter."}
    return Prompt.model_validate({**asked, **json.loads(json.dumps(fields)), "alias": alias}, strict=False)


def own_log_q(base, asked):
    encoded = encode_prompt(asked, base.chat)
    return target_log_probs(encoded, score(base.model, encoded, RowsPass()).log_probs)


@pytest.mark.parametrize("name", ASKED)
@each_server
def test_a_servers_figures_are_those_of_the_model(name, server, model, request):
    asked, notices = prompt(**ASKED[name]), []
    expected = own_log_q(model[0], asked)
    found = measure_served(Service(server, "tiny"), ChatSettings(), [asked], notices.append).figures("served", asked, 100, 500)
    closest = EXACT[request.node.callspec.params["server"]]
    assert np.log(found.q) == pytest.approx(expected, abs=closest), np.abs(np.log(found.q) - expected).max()
    own = exact_figures(asked, expected, 100)
    assert (found.kl, found.tvd, found.on_target) == pytest.approx((own.kl, own.tvd, own.on_target), abs=closest)
    assert "exact figures from" in notices[0]


@pytest.mark.parametrize(("likeliest", "few"), [(3, 20), (3, 0)])
def test_llama_cpp_is_asked_for_tokens_that_are_not_among_the_likeliest(llama, model, monkeypatch, likeliest, few):
    """One by one if they are few, otherwise for the whole vocabulary."""
    monkeypatch.setattr("diffusecli.sampling.given_text._LIKELIEST", likeliest)
    monkeypatch.setattr("diffusecli.sampling.given_text._FEW", few)
    for name in ("several tokens", "not ASCII"):
        asked = prompt(**ASKED[name])
        found = measure_served(Service(llama, "tiny"), ChatSettings(), [asked], print).figures("served", asked, 100, 500)
        assert np.log(found.q) == pytest.approx(own_log_q(model[0], asked), abs=EXACT["llama"])


@each_server
def test_every_wording_has_its_figures(server, model, request):
    asked = prompt(targets=["di", "H"], request=["Say a letter.", "Name a letter."], held_out_requests=["Letter?"])
    found = measure_served(Service(server, "tiny"), ChatSettings(), [asked], print).figures("served", asked, 100, 500)
    assert [(one.kind, one.name) for one in found.wordings] == [
        ("trained", "Say a letter."), ("trained", "Name a letter."), ("held-out", "Letter?"),
    ]  # fmt: skip
    for one, wording in zip(found.wordings, (*asked.wordings, *asked.held_out), strict=True):
        encoded = encode_prompt(wording, model[0].chat)
        own = figures_of(encoded, score(model[0].model, encoded, RowsPass()).log_probs)
        assert one.kl == pytest.approx(own.kl, abs=EXACT[request.node.callspec.params["server"]])
    assert found.kl == pytest.approx(np.mean([one.kl for one in found.wordings[:2]]))


def evaluated(in_process, url, *words, code=0):
    done = in_process("evaluate", "--exact", "--engine", "openai", "--base-url", url, "--model", "tiny", *words)
    assert done.returncode == code, done.stderr
    return done


def test_the_command_measures_prompts_without_samples(llama, in_process, prompt_file, model):
    path = prompt_file(targets=["di", "H"])
    (row,) = json.loads(evaluated(in_process, llama, "--prompts", path, "--json").stdout)["rows"]
    assert (row["run"], row["mode"], row["n"], row["bounds"]) == ("tiny", "served", 0, None)
    own = exact_figures(prompt(targets=["di", "H"]), own_log_q(model[0], prompt(targets=["di", "H"])), 1000)
    assert row["exact"]["kl"] == pytest.approx(own.kl, abs=1e-2)
    printed = evaluated(in_process, llama, "--prompts", path).stdout
    assert "exact KL" in printed
    assert (printed.count("exact TVD"), printed.count("on target")) == (1, 1)
    assert "model m-F16.gguf (requested as tiny)" in " ".join(printed.split())


def test_samples_from_the_server_get_its_figures_and_other_samples_do_not(llama, in_process, prompt_file, tmp_path):
    path = prompt_file(targets=["di", "H"])
    words = ["sample", "--engine", "openai", "--base-url", llama, "--prompt", path, "-n", 20, "--max-new-tokens", 8]
    for name, more in {"own": [], "bent": ["--temperature", "0.5"], "briefly": ["--system", "Be brief."]}.items():
        assert in_process(*words, "--model", "tiny", "-o", tmp_path / f"{name}.json", *more).returncode == 0
    assert in_process(*words, "--model", "another", "-o", tmp_path / "other.json").returncode == 0

    def rows(*names):
        files = [tmp_path / f"{name}.json" for name in names]
        return json.loads(evaluated(in_process, llama, *files, "--json").stdout)["rows"]

    (own,) = rows("own")
    assert own["n"] == 20
    assert own["exact"]["kl"] > 0
    for name in ("bent", "other"):
        sampled, alone = sorted(rows(name), key=lambda row: -row["n"])
        assert (sampled["n"], sampled["exact"], alone["mode"]) == (20, None, "served")
        assert alone["exact"]["kl"] == pytest.approx(own["exact"]["kl"], abs=1e-4)
    (briefly,) = rows("briefly")
    assert briefly["exact"]["kl"] != pytest.approx(own["exact"]["kl"], abs=1e-2), "measured with the system text of the samples"


def test_samples_from_another_address_are_named(llama, in_process, prompt_file, tmp_path):
    path, file = prompt_file(targets=["di", "H"]), tmp_path / "s.json"
    words = ["--engine", "openai", "--model", "tiny", "--prompt", path, "-n", 5, "--max-new-tokens", 8]
    assert in_process("sample", *words, "--base-url", llama, "-o", file).returncode == 0
    assert "another address" not in evaluated(in_process, f"{llama}/", file).stderr
    elsewhere = llama.replace("127.0.0.1", "localhost")
    said = " ".join(evaluated(in_process, elsewhere, file).stderr.split())
    assert f"samples of the model tiny are from another address ({llama})" in said


def test_the_prompts_of_a_run_are_measured_with_its_system_text(trained, vllm, model, in_process):
    config = Path(trained.output_dir) / "config.yaml"
    config.write_text(config.read_text().replace("system: null", "system: Be brief."))
    rows = json.loads(evaluated(in_process, vllm, trained.output_dir, "--json").stdout)["rows"]
    (row,) = [row for row in rows if row["mode"] == "served"]
    asked = read_prompt(Path(trained.train_prompts[0])).model_copy(update={"system": "Be brief."})
    assert row["exact"]["kl"] == pytest.approx(exact_figures(asked, own_log_q(model[0], asked), 1000).kl, abs=1e-3)
    assert {row["mode"] for row in rows} > {"served"}, "the run keeps its own figures"


def test_without_a_name_the_adapter_of_the_run_is_measured(trained, vllm, in_process, tmp_path):
    words = ["--exact", "--engine", "openai", "--base-url", vllm, "--json"]
    rows = json.loads(in_process("evaluate", trained.output_dir, *words).stdout)["rows"]
    (row,) = [row for row in rows if row["mode"] == "served"]
    assert row["run"] == RunDir(Path(trained.output_dir)).served_name
    assert diffuse.evaluate(trained.output_dir, exact=True, engine="openai", base_url=vllm).document.rows[-1].mode == "served"
    (tmp_path / "s.json").write_text(json.dumps({str(trained.train_prompts[0]): ["{a}"]}))
    done = in_process("evaluate", tmp_path / "s.json", *words)
    assert (done.returncode, "--engine openai needs --model, unless" in " ".join(done.stderr.split())) == (2, True), done.stderr


def test_answers_in_parts_are_left_out_and_named(vllm):
    notices, asked = [], prompt(targets=["a", "b"], draws={"n": 2})
    assert not measure_served(Service(vllm, "tiny"), ChatSettings(), [asked], notices.append).knows("served", asked)
    assert notices == ["answers in parts are not measured on a server: p.json"]


@pytest.mark.parametrize("more", [{}, {"most": 5}, {"newer": True}])
def test_a_server_that_lists_first_tokens_gives_limits_that_hold(model, more):
    base, notices = model[0], []
    for fields in ({"targets": ["g", "d", "H", "j"]}, {"targets": ["di", "dim", "HE", ""]}, ASKED["spellings"]):
        asked = prompt(**fields)
        with OpenAi(base.model, base.tokenizer, **more) as server:
            measured = measure_served(Service(server.url, "tiny"), ChatSettings(), [asked], notices.append)
        assert measured.figures("served", asked, 100, 500) is None, "no limit is shown as exact"
        limits, own = measured.limits("served", asked), exact_figures(asked, own_log_q(base, asked), 100)
        assert all(q <= high + 1e-6 for q, high in zip(own.q, limits.q_high, strict=True))
        assert 0 < limits.kl_low <= own.kl
        assert limits.tvd_low <= own.tvd
        assert limits.on_target_high >= own.on_target
    assert "limits, not exact figures, from top_logprobs of the first token" in notices[0]


def test_a_server_that_is_starting_is_asked_again_for_exact_figures(model):
    class Starting(Vllm):
        started = False

        def tokenize(self, body):
            self.started, before = True, self.started
            return super().tokenize(body) if before else (503, {"error": {"message": "loading the model"}})

    asked = prompt(targets=["di", "H"])
    with Starting(model[0].model, model[0].tokenizer) as server:
        measured = measure_served(Service(server.url, "tiny", tries=2), ChatSettings(), [asked], print)
    assert measured.figures("served", asked, 100, 500) is not None


def test_limits_are_called_limits_everywhere(model, in_process, prompt_file, tmp_path):
    path = prompt_file(targets=["di", "H"])
    with OpenAi(model[0].model, model[0].tokenizer) as server:
        (row,) = json.loads(evaluated(in_process, server.url, "--prompts", path, "--json").stdout)["rows"]
        texts = [
            evaluated(in_process, server.url, "--prompts", path, *words).stdout for words in ([], ["--verbose"], ["--markdown"])
        ]
        evaluated(in_process, server.url, "--prompts", path, "--html", tmp_path / "r.html")
        missed = evaluated(in_process, server.url, "--prompts", path, "--max-kl", "0.1", code=1).stderr
        line = evaluated(in_process, server.url, "--prompts", path, "--csv").stdout
    assert row["exact"] is None
    assert row["bounds"]["kl_low"] > 0
    assert (texts[0].count("TVD at least"), texts[0].count("on target at most")) == (1, 1)
    for text in (*texts, (tmp_path / "r.html").read_text()):
        assert "at least" in text
        assert not any(f"exact {name} " in text for name in ("KL", "TVD") if text is not texts[2]), text
    assert "exact KL is not known (the server gives only limits)" in missed
    assert dict(zip(*[one.split(",") for one in line.splitlines()[:2]], strict=False))["exact_kl"] == ""


def test_a_server_without_log_probabilities_is_refused_with_the_way_out(model, in_process, prompt_file):
    with Silent(model[0].model, model[0].tokenizer) as server:
        done = evaluated(in_process, server.url, "--prompts", prompt_file(), code=2)
    assert "returns no log-probabilities" in done.stderr
    assert "Serve the model with vLLM or llama.cpp" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    with closed_port() as port, pytest.raises(MachineError, match="failed for the model tiny"):
        measure_served(Service(f"http://127.0.0.1:{port}/v1", "tiny", tries=1), ChatSettings(), [prompt(targets=["a"])], print)


def test_a_program_measures_a_server_too(vllm, prompt_file):
    found = diffuse.evaluate(prompts=prompt_file(), exact=True, engine="openai", base_url=vllm, model="tiny", notice=print)
    assert found.to_frame()["exact_kl"][0] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "openai"], "--engine has no effect without --exact"),
        (["--exact", "--base-url", "http://x/v1"], "--engine: only openai can be measured"),
        (["--exact", "--engine", "counting"], "--engine: only openai can be measured"),
        (["--exact", "--engine", "openai", "--model", "m"], "--engine openai needs --base-url"),
        (["--exact", "--engine", "openai", "--base-url", "http://x/v1"], "--engine openai needs --model"),
        (["--exact", "--engine", "openai", "--base-url", "x", "--model", "m"], "must be a URL"),
        (["--exact", "--engine", "openai", "--base-url", "http://x/v1", "--model", "m"], "or prompts with --prompts"),
    ],
)
def test_options_that_do_not_fit_are_named(in_process, words, message):
    done = in_process("evaluate", *words)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "http://x"}, "base_url has no effect without exact=True"),
        ({"base_url": "http://x", "exact": True}, "engine: only openai can be measured. Use engine='openai'"),
        ({"omit": ["n"]}, "omit: not an option of evaluate"),
        ({"engine": "openai", "base_url": "http://x", "model": "m"}, "engine has no effect without exact=True"),
        ({"engine": "openai", "exact": True, "model": "m"}, "engine='openai' needs base_url"),
        ({"engine": "counting", "exact": True}, "engine: only openai can be measured"),
        (
            {"engine": "openai", "exact": True, "base_url": "http://x", "model": "m", "omit": ["n"]},
            "omit: not an option of evaluate",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, message):
    with pytest.raises(InputError, match=message):
        diffuse.evaluate(".", **options)
