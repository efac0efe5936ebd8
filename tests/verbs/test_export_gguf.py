"""GGUF files from `diffuse export`: the adapter's probabilities in llama.cpp, one whole file or none, and clear refusals."""

import json

import gguf
import numpy as np
import pytest

from diffusecli.evaluation.fit import goodness_of_fit
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import load_model
from diffusecli.models.lora import load_adapter
from diffusecli.models.source import ModelSource
from diffusecli.prompts.config import Config
from diffusecli.prompts.prompt_files import read_prompt
from diffusecli.system.errors import InputError, MachineError
from diffusecli.training.loss import score
from diffusecli.training.rows_pass import RowsPass
from diffusecli.verbs.export import MARK, export
from diffusecli.verbs.train import train
from tests import ROOT
from tests.models.llama_cpp import served
from tests.models.test_gguf_out import VOCABULARY, tokenizer_like_gpt2
from tests.tiny import byte_tokenizer, tiny_llama


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny_llama(vocabulary=VOCABULARY).save_pretrained(folder)
    tokenizer_like_gpt2().save_pretrained(folder)
    return folder


def trained_on(folder, tmp_path, prompt_file, **more):
    config = Config.model_validate({
        "model": str(folder), "train_prompts": [str(prompt_file("p.json"))], "alg_config": {"n_iters": 3}, "device": "cpu",
        "output_dir": str(tmp_path / "run"), "generate": False, "retain": False, **more,
    })  # fmt: skip
    return train(config, report=lambda _: None, notice=lambda _: None).run


@pytest.fixture
def run(base_folder, tmp_path, prompt_file):
    return trained_on(base_folder, tmp_path, prompt_file)


def exported(run, to, **more):
    return export(run, to, **{"precision": None, "force": False, "notice": print, **more})


def adapted(run, folder, prompt):
    """The prompt in tokens, and the adapter's log-probabilities of its answers."""
    base = load_model(ModelSource(str(folder), device="cpu"), print)
    load_adapter(base, run.path)
    encoded = encode_prompt(read_prompt(prompt), base.chat)
    return encoded, score(base.model, encoded, RowsPass()).log_probs


@pytest.mark.parametrize(("kind", "closest"), [("f16", 0.02), ("bf16", 0.1), ("q8_0", 0.5)])
def test_llama_cpp_gives_answers_the_adapters_probabilities(run, base_folder, tmp_path, kind, closest):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    done = exported(run, tmp_path / "m", gguf=kind)
    assert done.gap < closest
    encoded, expected = adapted(run, base_folder, tmp_path / "p.json")
    with served(tmp_path / "m" / done.file) as server:
        assert tuple(server.prompt_tokens([{"role": "user", "content": "Say a letter."}])) == encoded.prompt_ids
        found = server.path_log_probs(encoded.prompt_ids, encoded.trie, VOCABULARY)
    assert np.abs(found - expected).max() < closest
    assert np.abs(found - expected).max() == pytest.approx(done.gap, abs=closest / 2), "the reported difference is the real one"


def test_llama_cpp_applies_the_adapter_to_the_base_model(run, base_folder, tmp_path, prompt_file):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    (tmp_path / "idle").mkdir()
    idle = trained_on(base_folder, tmp_path / "idle", prompt_file, alg_config={"n_iters": 1}, lora={"alpha": 1e-6})
    base = exported(idle, tmp_path / "base", gguf="f16")
    done = exported(run, tmp_path / "a", gguf_adapter=True)
    record = json.loads((tmp_path / "a" / MARK).read_text())
    assert record.keys() & {"answers", "gap"} == set(), "nothing was compared"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["a-lora.gguf", MARK]
    encoded, expected = adapted(run, base_folder, tmp_path / "p.json")
    with served(tmp_path / "base" / base.file, lora=tmp_path / "a" / done.file) as server:
        found = server.path_log_probs(encoded.prompt_ids, encoded.trie, VOCABULARY)
    with served(tmp_path / "base" / base.file) as server:
        without = server.path_log_probs(encoded.prompt_ids, encoded.trie, VOCABULARY)
    assert np.abs(found - expected).max() < 0.02
    assert np.abs(without - expected).max() > 0.2, "the adapter does something"


@pytest.mark.parametrize(("settings", "alpha"), [({"r": 4, "alpha": 8}, 8.0), ({"r": 4, "alpha": 8, "rslora": True}, 16.0)])
def test_an_adapter_file_holds_the_matrices_and_their_scale(base_folder, tmp_path, prompt_file, settings, alpha):
    """llama.cpp multiplies by alpha / rank; rsLoRA by alpha / sqrt(rank), so 8 becomes 8 · sqrt(4)."""
    from safetensors.numpy import load_file

    run = trained_on(base_folder, tmp_path, prompt_file, lora=settings)
    done = exported(run, tmp_path / "a", gguf_adapter=True)
    reader = gguf.GGUFReader(tmp_path / "a" / done.file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert [fields[f"general.{name}"] for name in ("architecture", "type")] == ["llama", "adapter"]
    assert (fields["adapter.type"], fields["adapter.lora.alpha"]) == ("lora", alpha)
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    kept = load_file(run.path / "adapter_model.safetensors")
    assert len(written) == len(kept)
    layer = "base_model.model.model.layers.1"
    np.testing.assert_array_equal(written["blk.1.attn_q.weight.lora_a"], kept[f"{layer}.self_attn.q_proj.lora_A.weight"])
    np.testing.assert_array_equal(written["blk.1.ffn_down.weight.lora_b"], kept[f"{layer}.mlp.down_proj.lora_B.weight"])
    keys = kept[f"{layer}.self_attn.k_proj.lora_B.weight"]  # 2 heads of 8 rows: row i + 4 follows row i
    np.testing.assert_array_equal(
        written["blk.1.attn_k.weight.lora_b"], keys[[0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]]
    )


def test_the_folder_has_the_file_a_modelfile_and_the_record(run, tmp_path):
    done = exported(run, tmp_path / "letters", gguf="q8_0")
    assert sorted(path.name for path in (tmp_path / "letters").iterdir()) == ["Modelfile", "README.md", MARK, "letters-Q8_0.gguf"]
    record = json.loads((tmp_path / "letters" / MARK).read_text())
    assert (record["file"], record["dtype"], record["gap"]) == ("letters-Q8_0.gguf", "q8_0", done.gap)
    assert record["adapter_sha256"] == run.adapter_sha256
    card = (tmp_path / "letters" / "README.md").read_text()
    assert "library_name: gguf" in card
    assert "```sh\nllama-server -m letters-Q8_0.gguf --temp 1 --top-k 0 --top-p 1 --min-p 0\n" in card


def test_the_modelfile_leaves_the_distribution_unchanged(base_folder, tmp_path, prompt_file):
    run = trained_on(base_folder, tmp_path, prompt_file, system='Be "brief".')
    exported(run, tmp_path / "m", gguf="f16")
    lines = (tmp_path / "m" / "Modelfile").read_text().splitlines()
    assert lines[1] == "FROM ./m-F16.gguf"
    parameters = [line.removeprefix("PARAMETER ") for line in lines if line.startswith("PARAMETER")]
    assert parameters == ["temperature 1", "top_k 0", "top_p 1", "min_p 0", "repeat_penalty 1", 'stop "<|im_end|>"']
    assert lines[2] == (r'TEMPLATE """{{- if not .System }}{{ "<|im_start|>system\nBe \"brief\".<|im_end|>\n" }}{{- end }}'), (
        "the system prompt of the run is the default"
    )


def test_the_file_itself_asks_servers_for_neutral_sampling(run, tmp_path):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    done = exported(run, tmp_path / "m", gguf="f16")
    with served(tmp_path / "m" / done.file) as server:
        used = server.get("props")["default_generation_settings"]["params"]
    expected = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "typical_p": 1.0}
    assert {name: used[name] for name in expected} == expected


def test_a_system_prompt_is_part_of_the_prompts_that_llama_cpp_makes(base_folder, tmp_path, prompt_file):
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    run = trained_on(base_folder, tmp_path, prompt_file, system="Be brief.")
    done = exported(run, tmp_path / "m", gguf="f16")
    base = load_model(ModelSource(str(base_folder), device="cpu"), print)
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay a letter.<|im_end|>\n<|im_start|>assistant\n"
    with served(tmp_path / "m" / done.file) as server:
        found = server.prompt_tokens([{"role": "user", "content": "Say a letter."}])
    assert found == base.tokenizer(rendered, add_special_tokens=False)["input_ids"]


def test_a_tokenizer_without_a_name_in_llama_cpp_is_refused(tmp_path, prompt_file):
    """Its pre-tokenizer does not split words; llama.cpp has no such rule."""
    folder = tmp_path / "odd"
    tiny_llama(vocabulary=VOCABULARY).save_pretrained(folder)
    byte_tokenizer([("a", "b")]).save_pretrained(folder)
    run = trained_on(folder, tmp_path, prompt_file)
    with pytest.raises(
        InputError,
        match=r"no name for the pre-tokenizer.*changes probabilities.*`diffuse export RUN -o DIR`.*convert_hf_to_gguf\.py",
    ):
        exported(run, tmp_path / "m", gguf="f16")
    assert not (tmp_path / "m").exists()
    exported(run, tmp_path / "a", gguf_adapter=True)  # has no tokenizer


def test_an_unknown_architecture_is_refused_with_the_way_out(tmp_path, prompt_file):
    from tests.models.architectures import build

    folder = tmp_path / "odd"
    build("Olmo2", vocab_size=VOCABULARY).save_pretrained(folder)
    tokenizer_like_gpt2().save_pretrained(folder)
    run = trained_on(folder, tmp_path, prompt_file)
    for options in ({"gguf": "f16"}, {"gguf_adapter": True}):
        with pytest.raises(
            InputError, match=r"GGUF: the architecture Olmo2ForCausalLM is not supported\. Supported are Gemma2.*convert_hf_to_gguf"
        ):
            exported(run, tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_every_refusal_is_one_message_with_exit_code_2_and_leaves_nothing(tmp_path, prompt_file, in_process):
    """An unknown architecture, a window that is too short, a quantised base."""
    from tests.models.architectures import build

    cases = {
        "Olmo2": ({}, "architecture Olmo2ForCausalLM is not supported"),
        "Mistral": ({"sliding_window": 20}, "p.json: request and answer have up to 36 tokens, but llama.cpp computes this model correctly only up to 20"),
        "Llama": ({}, "was trained on a quantised base model"),
    }  # fmt: skip
    for kind, (settings, message) in cases.items():
        place = tmp_path / kind
        build(kind, vocab_size=VOCABULARY, **settings).save_pretrained(place / "base")
        tokenizer_like_gpt2().save_pretrained(place / "base")
        run = trained_on(place / "base", place, prompt_file)
        if "quantised" in message:
            run.config.write_text(run.config.read_text().replace("quantize: null", "quantize: nf4"))
        before = sorted(place.iterdir())
        done = in_process("export", run.path, "-o", place / "m", "--gguf", "f16")
        assert (done.returncode, done.stdout, done.stderr.count("diffuse: ")) == (2, "", 1), done.stderr
        assert message in " ".join(done.stderr.split())
        assert sorted(place.iterdir()) == before


def test_a_prompt_that_fills_the_window_has_the_adapters_probabilities(tmp_path, prompt_file):
    """llama.cpp has no window here. One token more is refused."""
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    from tests.models.architectures import build

    folder = tmp_path / "base"
    build("Mistral", vocab_size=VOCABULARY, sliding_window=36).save_pretrained(folder)
    tokenizer_like_gpt2().save_pretrained(folder)
    run = trained_on(folder, tmp_path, prompt_file)
    done = exported(run, tmp_path / "m", gguf="f16")
    encoded, expected = adapted(run, folder, tmp_path / "p.json")
    assert len(encoded.prompt_ids) + encoded.longest == 36
    with served(tmp_path / "m" / done.file) as server:
        found = server.path_log_probs(encoded.prompt_ids, encoded.trie, VOCABULARY)
    assert np.abs(found - expected).max() < 0.02
    exported(run, tmp_path / "a", gguf_adapter=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 35}))
    for options in ({"gguf": "f16"}, {"gguf_adapter": True}):
        with pytest.raises(InputError, match=r"up to 36 tokens, but .* only up to 35"):
            exported(run, tmp_path / "n", **options)


def test_a_dora_adapter_cannot_be_a_file_of_its_own(base_folder, tmp_path, prompt_file):
    run = trained_on(base_folder, tmp_path, prompt_file, lora={"dora": True})
    with pytest.raises(InputError, match=r"does not support DoRA adapters\. Merge the model instead"):
        exported(run, tmp_path / "a", gguf_adapter=True)


@pytest.mark.parametrize("options", [{"gguf": "f16"}, {"gguf_adapter": True}])
def test_a_quantised_base_is_refused(run, tmp_path, options):
    run.config.write_text(run.config.read_text().replace("quantize: null", "quantize: nf4"))
    with pytest.raises(InputError, match="trained on a quantised base"):
        exported(run, tmp_path / "m", **options)


def test_a_file_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    written = []

    def fails(self, tensor):
        written.append(tensor)
        if len(written) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("gguf.GGUFWriter.write_tensor_data", fails)
    with pytest.raises(MachineError, match=r"m: cannot be written: No space left on device\. Free some space"):
        exported(run, tmp_path / "m", gguf="f16")
    assert not (tmp_path / "m").exists()
    assert list(tmp_path.glob(".m.*")) == []


def test_tensors_are_encoded_one_after_another(run, tmp_path, monkeypatch):
    """Each is written before the next is made, so that memory holds one."""
    from diffusecli.models import gguf_file

    steps = []
    encode, write = gguf_file.encode_values, gguf.GGUFWriter.write_tensor_data
    monkeypatch.setattr(gguf_file, "encode_values", lambda *args: steps.append("encode") or encode(*args))
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", lambda self, tensor: steps.append("write") or write(self, tensor))
    exported(run, tmp_path / "m", gguf="f16")
    assert steps == ["encode", "write"] * (len(steps) // 2)
    assert len(steps) == 2 * 20  # 9 tensors per layer, the embedding and the last norm


def test_weights_too_large_for_16_bits_are_refused(run, base_folder, tmp_path, monkeypatch):
    def enlarged(*args, **more):
        base = load_model(*args, **more)
        base.model.model.layers[0].mlp.down_proj.weight.data[0, 0] = 1e6
        return base

    monkeypatch.setattr("diffusecli.verbs.export.load_model", enlarged)
    with pytest.raises(InputError, match=r"too large for f16\. Use --gguf bf16"):
        exported(run, tmp_path / "m", gguf="f16")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--gguf", "q4_0"], "--gguf q4_0: must be one of f16, bf16, q8_0"),
        (["--gguf", "f16", "--gguf-adapter"], "--gguf with --gguf-adapter: choose one"),
        (["--gguf", "f16", "--precision", "bf16"], "--precision: does not apply to GGUF"),
        (["--gguf-adapter", "--precision", "bf16"], "--precision: does not apply to GGUF"),
    ],
)
def test_options_that_do_not_fit_are_refused(in_process, words, error):
    done = in_process("export", "run", "-o", "m", *words)
    assert done.returncode == 2
    assert error in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_command_names_the_file_and_how_to_serve_it(in_process, run):
    done = in_process("export", run.path, "-o", "Letters", "--gguf", "bf16")
    assert done.returncode == 0
    assert done.stdout.startswith("Letters/Letters-BF16.gguf: ")
    assert "(bf16); log-probabilities of 2 answers differ from the adapter's by" in " ".join(done.stdout.split())
    assert "if shares must be exact" not in done.stderr
    assert "next: `llama-server -m Letters/Letters-BF16.gguf --temp 1 --top-k 0 --top-p 1 --min-p 0`, or `ollama create letters -f Letters/Modelfile`" in " ".join(done.stderr.split())  # fmt: skip
    assert "already holds an exported model" in in_process("export", run.path, "-o", "Letters", "--gguf", "f16").stderr
    eight = " ".join(in_process("export", run.path, "-o", "Letters", "--gguf", "q8_0", "--force").stderr.split())
    assert "llama.cpp also rounds while it computes with q8_0" in eight
    assert "Use --gguf f16 if shares must be exact" in eight
    done = in_process("export", run.path, "-o", "Letters", "--gguf-adapter", "--force")
    assert done.stdout.startswith("Letters/Letters-lora.gguf: ")
    assert "--lora Letters/Letters-lora.gguf" in " ".join(done.stderr.split())


@pytest.mark.model
def test_llama_cpp_draws_from_the_adapters_distribution(tmp_path):
    """On the built-in model: probabilities of all targets, tokens of the prompt, and real draws of the server's own sampler."""
    pytest.importorskip("xllamacpp", reason="the tests' llama.cpp")
    prompt = ROOT / "prompts" / "numbers" / "rng-0.json"
    config = Config.model_validate({
        "model": "smollm2-135m-instruct", "train_prompts": [str(prompt)], "alg_config": {"n_iters": 4}, "device": "cpu",
        "output_dir": str(tmp_path / "run"), "generate": False, "retain": False,
    })  # fmt: skip
    run = train(config, report=lambda _: None, notice=lambda _: None).run
    done = exported(run, tmp_path / "m", gguf="f16")
    encoded, expected = adapted(run, "smollm2-135m-instruct", prompt)
    with served(tmp_path / "m" / done.file, context=128, slots=32, threads=2) as server:
        asked = [{"role": "user", "content": encoded.prompt.question}]
        assert tuple(server.prompt_tokens(asked)) == encoded.prompt_ids
        found = server.path_log_probs(encoded.prompt_ids, encoded.trie, 49152, most=1000)
        drawn = [answer for seed in (1, 1001, 2001) for answer in server.draws(encoded.prompt_ids, 32, seed)]
    assert np.abs(found - expected).max() < 0.01
    assert done.gap < 0.01
    counts = np.array([drawn.count(target) for target in encoded.prompt.targets])
    assert goodness_of_fit(counts, tuple(np.exp(expected) / np.exp(expected).sum()), 0).p_value > 1e-4
    assert counts.sum() / len(drawn) > np.exp(expected).sum() - 0.15
