"""The counting sampler: its law, its independence of how rows are grouped, and what must not bend it."""

import functools
import json
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency
from transformers import LlamaForCausalLM, MistralConfig, MistralForCausalLM

from diffusecli.models.attention import enable
from diffusecli.models.chat import Chat
from diffusecli.models.encoding import encode_prompt
from diffusecli.models.loading import LoadedModel, load_model
from diffusecli.models.source import ModelSource
from diffusecli.prompts.answers import Answers
from diffusecli.prompts.prompt import Prompt
from diffusecli.sampling.counting import CountingSampler, Drawing
from diffusecli.sampling.draws import Live, _exponentials, _invert, _search, _search_each, _sums, draw_tokens
from diffusecli.sampling.engine import Wanted, drawn
from diffusecli.sampling.generations import generate
from diffusecli.sampling.local_engine import LocalEngine
from diffusecli.sampling.row_choice import choose_rows
from diffusecli.sampling.rows import GatheredCache, SharedPrompt
from diffusecli.sampling.settings import SamplingSettings
from diffusecli.system.errors import InputError, InterruptedRun, MachineError
from tests.tiny import byte_tokenizer, tiny_llama

STOP = 2
TOKENIZER = byte_tokenizer()
PROMPT = Prompt(request="x", targets=(), alias="p.json")
ENCODED = encode_prompt(PROMPT, Chat(TOKENIZER))


KEPT = (STOP, *range(60, 66))


def few(kind):
    """A real model whose output is cut to six bytes and the terminator, so that every string can be enumerated."""

    @functools.wraps(kind.forward)
    def forward(self, *args, **inputs):
        out = kind.forward(self, *args, **inputs)
        cut = torch.full_like(out.logits, -1e9)
        cut[..., KEPT] = out.logits[..., KEPT]
        out.logits = cut
        return out

    return type(f"Few{kind.__name__}", (kind,), {"forward": forward})


def few_tokens(dtype=torch.float64, window=None):
    full = tiny_llama(seed=3, initializer_range=0.3)
    sliding = MistralConfig(**{**full.config.to_dict(), "sliding_window": window})
    model = few(LlamaForCausalLM)(full.config) if window is None else few(MistralForCausalLM)(sliding)
    model.load_state_dict(full.state_dict())
    return LoadedModel("few", model.to(dtype).eval(), TOKENIZER, "r")


BASE = few_tokens()


def counts_of(settings, base=BASE, **more):
    return drawn(LocalEngine(base, settings, **more), PROMPT)[0]


def exact_law(length, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, base=BASE):
    """Every token string of at most `length` tokens with its probability, by feeding each whole string anew."""
    law, frontier = {}, {(): 1.0}
    for depth in range(length):
        following = {}
        for prefix, mass in frontier.items():
            with torch.no_grad():
                logits = base.model(input_ids=torch.tensor([[*ENCODED.prompt_ids, *prefix]])).logits[0, -1] / temperature
            if top_k:
                logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
            for token, p in enumerate(truncated(logits.softmax(-1), top_p, min_p).tolist()):
                if p > 1e-12 and token == STOP:
                    law[prefix] = mass * p
                elif p > 1e-12:
                    (law if depth == length - 1 else following)[(*prefix, token)] = mass * p
        frontier = following
    return law


def truncated(p, top_p, min_p):
    """The definitions: the fewest likeliest tokens whose mass reaches top_p; tokens at least min_p times the likeliest."""
    order = p.argsort(descending=True)
    enough = int((p[order].cumsum(0) < top_p).sum()) + 1
    kept = torch.zeros_like(p, dtype=torch.bool)
    kept[order[:enough]] = True
    kept &= p >= min_p * p.max()
    return torch.where(kept, p, 0) / p[kept].sum()


def assert_follows(counts, law, seed=0):
    """Monte Carlo goodness of fit: the G statistic among those of 999 multinomial draws of the law itself."""
    texts = Counter()
    for ids, p in law.items():
        texts[TOKENIZER.decode(list(ids))] += p
    assert set(counts) <= set(texts)
    p = np.array(list(texts.values())) / sum(texts.values())
    seen = np.array([counts[text] for text in texts])
    rows = np.vstack([seen, np.random.default_rng(seed).multinomial(seen.sum(), p, size=999)])
    with np.errstate(divide="ignore", invalid="ignore"):
        g = 2 * np.where(rows > 0, rows * np.log(rows / (seen.sum() * p)), 0).sum(-1)
    assert (g >= g[0]).mean() > 1e-3


OPTIONS = [
    ({}, 0), ({}, 1), ({}, 2), ({"temperature": 0.5}, 3), ({"temperature": 2.0}, 4), ({"top_k": 3}, 5), ({"top_p": 0.7}, 6),
    ({"min_p": 0.2}, 7),
]  # fmt: skip


@pytest.mark.parametrize(("options", "seed"), OPTIONS)
def test_counts_follow_the_exact_law(options, seed):
    settings = SamplingSettings(100_000, max_new_tokens=3, seed=seed, **options)
    assert_follows(counts_of(settings), exact_law(3, **options))


@pytest.mark.parametrize("window", [1, 2, 3, 5, len(ENCODED.prompt_ids), len(ENCODED.prompt_ids) + 1])
def test_answers_that_outgrow_a_window_follow_the_exact_law(window):
    base, settings = few_tokens(window=window), SamplingSettings(100_000, max_new_tokens=3)
    engine = LocalEngine(base, settings)
    assert isinstance(engine._kind.rows(ENCODED.prompt_ids, 3), SharedPrompt)
    counts = counts_of(settings, base)
    assert_follows(counts, exact_law(3, base=base))
    with pytest.raises(AssertionError):
        assert_follows(counts, exact_law(3))
    assert counts_of(settings, base, max_rows=7) == counts, "rows that wait are fed anew"


@pytest.mark.parametrize("window", [2, 5, len(ENCODED.prompt_ids) + 1])
def test_a_window_hides_the_same_from_rows_of_either_kind(window):
    base, settings = few_tokens(window=window), SamplingSettings(3000, max_new_tokens=4, seed=5)
    assert enable(base.model)
    kinds = [kind(base.model, ENCODED.prompt_ids) for kind in (SharedPrompt, GatheredCache)]
    shared, gathered = (CountingSampler(rows, TOKENIZER, [Drawing(ENCODED, settings)], 40).draw() for rows in kinds)
    assert shared == gathered


@pytest.mark.parametrize(("options", "seed"), [OPTIONS[3], OPTIONS[-1]])
def test_batches_of_generate_follow_the_exact_law(options, seed, monkeypatch):
    monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    monkeypatch.setattr("diffusecli.sampling.local_engine._BATCH_ROWS", 5000)
    engine = LocalEngine(BASE, SamplingSettings(5000, max_new_tokens=3, seed=seed, **options), max_rows=2500)
    assert not engine.counting
    counts, _ = drawn(engine, PROMPT)
    assert counts.total() == 5000
    assert_follows(counts, exact_law(3, **options))


def test_the_law_test_can_fail():
    counts = counts_of(SamplingSettings(100_000, max_new_tokens=3, temperature=1.05))
    with pytest.raises(AssertionError):
        assert_follows(counts, exact_law(3))


def test_the_exact_law_this_test_relies_on_sums_to_one():
    assert sum(exact_law(2).values()) == pytest.approx(1)


@pytest.mark.parametrize("max_rows", [1, 2, 7, 50])
def test_the_result_does_not_depend_on_max_rows(max_rows):
    settings = SamplingSettings(3000, max_new_tokens=4, seed=5)
    assert counts_of(settings, max_rows=max_rows) == counts_of(settings)


def test_rows_of_either_kind_give_the_same_samples():
    settings = SamplingSettings(3000, max_new_tokens=4, seed=5)
    kinds = [kind(BASE.model, ENCODED.prompt_ids) for kind in (SharedPrompt, GatheredCache)]
    shared, gathered = (CountingSampler(rows, TOKENIZER, [Drawing(ENCODED, settings)], 40).draw() for rows in kinds)
    assert shared == gathered


@pytest.mark.parametrize("draws", [3, 5000])
@pytest.mark.parametrize("vocabulary", [1, 7, 1023, 1024, 1025, 2048, 2500])
def test_tokens_of_every_block_are_found_where_the_cumulative_distributions_say(vocabulary, draws):
    """Of the blocks, and of the tokens in the block; however many are drawn."""
    rng = np.random.default_rng(vocabulary)
    logits = torch.from_numpy(rng.normal(size=(3, vocabulary)) * 2).double()
    uniforms = [rng.random((draws, 2)) for _ in range(3)]
    found = _inverted(_exponentials(logits.clone()), uniforms)
    for row, pairs_of_uniforms, pairs in zip(logits.softmax(-1).numpy(), uniforms, found, strict=True):
        expected = Counter()
        starts = range(0, vocabulary, 1024)
        masses = np.array([row[start : start + 1024].sum() for start in starts]).cumsum()
        for u, v in pairs_of_uniforms:
            block = min(int((masses <= u * masses[-1]).sum()), len(starts) - 1)
            inside = row[1024 * block : 1024 * (block + 1)].cumsum()
            expected[1024 * block + min(int((inside <= v * inside[-1]).sum()), len(inside) - 1)] += 1
        assert Counter(dict(pairs)) == expected


def _inverted(exps, uniforms):
    """The tokens of each row with their counts, however they were searched."""
    searched, counted = _invert(exps, _sums(exps), uniforms)
    found = [Counter(counted.get(row, {})) for row in range(len(exps))]
    for rows, tokens in searched:
        for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
            found[row][token] += 1
    return [sorted(counts.items()) for counts in found]


@pytest.mark.parametrize("copies", [1, 10])
def test_tokens_without_mass_are_never_drawn(copies):
    """The ends of the unit interval, of both uniforms; a block's only token with mass is found whatever the second is."""
    exps = torch.zeros(1, 3000, dtype=torch.float64)
    exps[0, [1500, 2900]] = 1.0
    edges = [0.0, np.nextafter(0.5, 0), 0.5, np.nextafter(1.0, 0)]
    pairs = np.array([(u, v) for u in edges for v in edges] * copies)
    assert _inverted(exps, [pairs]) == [[(1500, 8 * copies), (2900, 8 * copies)]]


def test_a_token_without_mass_is_not_drawn_if_a_gpu_rounds_its_sum_differently():
    """A parallel sum may be a little larger or smaller at a mass of zero than at the mass before it."""
    masses = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64)
    ends = torch.tensor([[0.1, 0.5, 0.6, 1.0, 1.1]], dtype=torch.float64)
    uniforms = [0.0, 0.05, 0.49, 0.5, 0.55, 0.95, np.nextafter(1.0, 0)]
    found = [_search_each(masses, ends, torch.tensor([uniform], dtype=torch.float64)).item() for uniform in uniforms]
    assert found == [1, 1, 1, 3, 3, 3, 3]


def test_rounding_of_the_logits_moves_few_draws():
    """As batches of another shape round them, many tokens alike. One uniform for the whole vocabulary would move a hundred times as many."""
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(1, 49152)) * 2).float()
    rounded = logits + torch.linspace(-1e-5, 1e-5, 49152)
    uniforms = rng.random((3000, 2))
    found = [_tokens(_exponentials(one.clone()), uniforms) for one in (logits, rounded)]
    whole = [_exponentials(one.clone()).double().cumsum(-1)[0].numpy() for one in (logits, rounded)]
    plain = [ends.searchsorted(uniforms[:, 0] * ends[-1]) for ends in whole]
    assert (plain[0] != plain[1]).mean() > 0.05
    assert (found[0] != found[1]).mean() < 0.001


def _tokens(exps, uniforms):
    """The token of each draw from a row."""
    return _search(exps, _sums(exps), np.zeros(len(uniforms), dtype=np.int64), uniforms).numpy()


def test_draws_beyond_what_goes_at_once_are_the_same(monkeypatch):
    expected = counts_of(SamplingSettings(3000, 3))
    monkeypatch.setattr("diffusecli.sampling.draws._DRAWS_AT_ONCE", 700)
    assert counts_of(SamplingSettings(3000, 3)) == expected


def test_draws_at_once_are_bounded_over_all_rows_of_a_slice(monkeypatch):
    """Rows with many, few and no draws; a row may begin and end in the middle of a call."""
    counts = [500, 3, 0, 1200, 17, 700, 1]
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(len(counts), 2500)))
    live, at_once = Live([0] * len(counts), [(row,) for row in range(len(counts))], counts), []

    def drawn_here():
        return draw_tokens([(1, 2)], SamplingSettings(1, 1), live, logits.clone())

    def watched(exps, sums, uniforms):
        at_once.append(sum(map(len, uniforms)))
        return _invert(exps, sums, uniforms)

    expected = drawn_here()
    monkeypatch.setattr("diffusecli.sampling.draws._DRAWS_AT_ONCE", 600)
    monkeypatch.setattr("diffusecli.sampling.draws._invert", watched)
    assert drawn_here() == expected
    assert at_once == [600, 600, 600, 600, 21]
    assert [sum(count for _, count in pairs) for pairs in expected] == counts


def test_probabilities_that_are_no_numbers_are_told():
    broken = few_tokens(torch.float32)
    engine = LocalEngine(broken, SamplingSettings(20, 2))
    broken.model.model.norm.weight.data[:] = torch.nan
    with pytest.raises(InputError, match=r"weights of the model are NaN \(model\.norm\.weight\)"):
        drawn(engine, PROMPT)


def test_a_temperature_close_to_nothing_takes_the_likeliest():
    likeliest = max(exact_law(1).items(), key=lambda item: item[1])[0]
    assert counts_of(SamplingSettings(50, 1, temperature=1e-39)) == {TOKENIZER.decode(list(likeliest)): 50}


def test_answers_end_where_the_context_does():
    notices = []
    model = tiny_llama(max_position_embeddings=len(ENCODED.prompt_ids) + 4)
    base = LoadedModel("short", model, TOKENIZER, "r")
    counts, _ = drawn(LocalEngine(base, SamplingSettings(30, 9), notice=notices.append), PROMPT)
    assert counts.total() == 30
    assert "are cut after 4 tokens" in notices[0]
    base.model.config.max_position_embeddings = 3
    with pytest.raises(InputError, match="the model's context is 3"):
        drawn(LocalEngine(base, SamplingSettings(30, 9)), PROMPT)


def test_live_rows_are_bounded():
    alive = []
    rows = SharedPrompt(BASE.model, ENCODED.prompt_ids)
    drawing = Drawing(ENCODED, SamplingSettings(5000, 5), watch=lambda now: alive.append(now.rows))
    CountingSampler(rows, TOKENIZER, [drawing], 16).draw()
    assert max(alive) == 16


def test_when_memory_runs_out_half_as_many_rows_go_on_to_the_same_result(monkeypatch):
    settings = SamplingSettings(3000, max_new_tokens=4, seed=5)
    expected = counts_of(settings)
    extend, refused = SharedPrompt.extend, []

    def short(self, parents, tokens):
        if len(tokens) > 20:
            refused.append(len(tokens))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return extend(self, parents, tokens)

    monkeypatch.setattr(SharedPrompt, "extend", short)
    assert counts_of(settings, max_rows=100) == expected
    assert refused
    engine = LocalEngine(BASE, settings)
    monkeypatch.setattr(SharedPrompt, "extend", lambda *_: short(None, None, [0] * 21))
    with pytest.raises(MachineError, match="max-new-tokens"):
        drawn(engine, PROMPT)


PROMPTS = [Prompt(request=text, targets=(), alias=text) for text in ("x", "a longer one", "of middle size", "yy")]


def together(engine, prompts=PROMPTS):
    """Answers by prompt with the tokens fed, in the order in which they arrive."""
    got = {}
    engine.draw_all([
        Wanted(prompt, engine.settings.n_generations, Answers(), lambda counts, fed, alias=prompt.alias: got.update({alias: (counts, fed)}), lambda _: None)
        for prompt in prompts
    ])  # fmt: skip
    return got


@pytest.mark.parametrize("max_rows", [None, 1, 7, 50])
@pytest.mark.parametrize("window", [None, 3, 16])
def test_prompts_that_go_together_get_the_samples_they_get_alone(max_rows, window):
    base, settings = few_tokens(window=window), SamplingSettings(1000, max_new_tokens=4, seed=5)
    got = together(LocalEngine(base, settings, max_rows=max_rows))
    alone = {prompt.alias: drawn(LocalEngine(base, settings), prompt) for prompt in PROMPTS}
    assert {alias: counts for alias, (counts, _) in got.items()} == {alias: counts for alias, (counts, _) in alone.items()}
    if max_rows is None:
        assert got == alone, "no token is fed more than once"


def test_prompts_that_go_together_follow_the_exact_law():
    got = together(LocalEngine(BASE, SamplingSettings(100_000, max_new_tokens=3)), [*PROMPTS[1:], PROMPT])
    assert_follows(got[PROMPT.alias][0], exact_law(3))


def forward_calls(monkeypatch, action):
    """How many tokens each call of the model takes."""
    forward, rows = BASE.model.forward, []

    def counted(*given, **more):
        rows.append(more["input_ids"].numel())
        return forward(*given, **more)

    monkeypatch.setattr(BASE.model, "forward", counted)
    action()
    monkeypatch.undo()
    return rows


def test_prompts_share_forward_calls(monkeypatch):
    """Prompts are fed in one, and each token of all answers in another."""
    engine = LocalEngine(BASE, SamplingSettings(10, max_new_tokens=4))
    together(engine)  # probes
    rows = forward_calls(monkeypatch, lambda: together(engine))
    alone = [forward_calls(monkeypatch, lambda prompt=prompt: drawn(engine, prompt)) for prompt in PROMPTS]
    assert rows[0] == sum(len(encode_prompt(prompt, Chat(TOKENIZER)).prompt_ids) for prompt in PROMPTS)
    assert len(rows) == max(map(len, alone)) < sum(map(len, alone))
    assert sum(rows) == sum(map(sum, alone)), "no token more"


@pytest.mark.parametrize(("limit", "value"), [("_PROMPTS_TOGETHER", 2), ("_PROMPT_TOKENS_TOGETHER", 2 * 35)])
def test_no_more_prompts_go_together_than_an_interruption_may_lose_and_memory_holds(monkeypatch, limit, value):
    monkeypatch.setattr(f"diffusecli.sampling.local_engine.{limit}", value)
    lengths = [len(encode_prompt(prompt, Chat(TOKENIZER)).prompt_ids) for prompt in PROMPTS]
    assert max(lengths) <= 35 < 1.5 * max(lengths)
    engine = LocalEngine(BASE, SamplingSettings(10, max_new_tokens=2))
    together(engine)
    tokens = forward_calls(monkeypatch, lambda: together(engine))
    assert [fed for fed in tokens if fed > 2 * 10] == [sum(lengths[:2]), sum(lengths[2:])]


def test_more_rows_than_go_at_once_are_cut_between_prompts():
    """A prompt whose rows do not wait is over before the others, so that its answers are safe."""
    arrived = []
    engine = LocalEngine(BASE, SamplingSettings(40, max_new_tokens=5), max_rows=45)
    engine.draw_all([
        Wanted(prompt, 40, Answers(), lambda *_, alias=prompt.alias: arrived.append(alias), lambda _: None) for prompt in PROMPTS
    ])  # fmt: skip
    assert arrived == [prompt.alias for prompt in PROMPTS]


def test_a_prompt_that_is_refused_costs_none_of_those_before_it():
    long = Prompt(request="x" * 200, targets=(), alias="long")
    model = tiny_llama(max_position_embeddings=len(ENCODED.prompt_ids) + 40)
    arrived = []
    engine = LocalEngine(LoadedModel("short", model, TOKENIZER, "r"), SamplingSettings(30, 3))
    with pytest.raises(InputError, match="long: has"):
        engine.draw_all([
            Wanted(prompt, 30, Answers(), lambda counts, _, alias=prompt.alias: arrived.append((alias, counts.total())), lambda _: None)
            for prompt in (PROMPTS[0], PROMPTS[3], long, PROMPTS[1])
        ])  # fmt: skip
    assert sorted(arrived) == [("x", 30), ("yy", 30)]


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_prompts_of_a_model_whose_positions_depend_on_the_longest_row_go_alone(rope):
    model = tiny_llama(seed=1)
    assert choose_rows(model).joins
    model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": rope}
    assert not choose_rows(model).joins


def test_prompts_of_a_model_that_takes_one_position_for_all_rows_go_alone():
    model = few_tokens(torch.float32).model
    forward = model.model.forward

    def of_the_first(*given, position_ids=None, **more):
        positions = None if position_ids is None else position_ids[:1].expand_as(position_ids)
        return forward(*given, position_ids=positions, **more)

    model.model.forward = of_the_first
    assert choose_rows(model).make is SharedPrompt
    assert not choose_rows(model).joins


def test_the_cost_is_the_distinct_prefixes():
    _, fed = drawn(LocalEngine(BASE, SamplingSettings(50_000, max_new_tokens=3)), PROMPT)
    assert fed <= len(ENCODED.prompt_ids) + 6 + 36


def test_same_seed_same_samples_other_seed_others():
    settings = SamplingSettings(200, max_new_tokens=4)
    assert counts_of(settings) == counts_of(settings)
    assert counts_of(settings) != counts_of(replace(settings, seed=1))


def test_an_answer_ends_before_a_stop_string(monkeypatch):
    plain = counts_of(SamplingSettings(2000, max_new_tokens=4))
    letter = max("".join(plain), key="".join(plain).count)
    stopped = counts_of(SamplingSettings(2000, max_new_tokens=4, stop=(letter, "no such text")))
    expected = Counter()
    for text, count in plain.items():
        expected[text.split(letter)[0]] += count
    assert stopped.total() == 2000
    assert all(letter not in text for text in stopped)
    monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    in_batches = counts_of(SamplingSettings(200, max_new_tokens=4, stop=(letter,)))
    assert all(letter not in text for text in in_batches)
    assert stopped == expected  # the streams are keyed by prefix, so the draws up to the stop are the same


@pytest.mark.model
def test_counting_and_generate_agree_on_the_built_in_model(builtin_model, monkeypatch):
    """Untuned, a two-sample test of the most frequent answers."""
    prompt = Prompt(request="Pick heads or tails. Answer with one word.", targets=(), alias="coin")
    engine = LocalEngine(builtin_model, SamplingSettings(3000, max_new_tokens=2))
    rows = engine._kind.rows((1, 2, 3), 2)
    assert isinstance(rows, SharedPrompt)
    monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    batches = LocalEngine(builtin_model, SamplingSettings(320, max_new_tokens=2))
    counted, plain = (drawn(one, prompt)[0] for one in (engine, batches))
    common = [text for text, count in counted.items() if count >= 30]
    table = [[counts[text] for text in common] + [counts.total() - sum(counts[t] for t in common)] for counts in (counted, plain)]
    assert len(common) >= 4
    assert chi2_contingency(np.array(table)).pvalue > 1e-3


def test_a_model_whose_rows_cannot_be_kept_is_sampled_by_generate(monkeypatch):
    monkeypatch.setattr("diffusecli.sampling.row_choice._gap", lambda *_: 1.0)
    engine = LocalEngine(BASE, SamplingSettings(300, max_new_tokens=3))
    assert engine.about["engine"] == "generate"
    assert drawn(engine, PROMPT)[0].total() == 300


@pytest.mark.parametrize("batches", [False, True])
def test_a_hostile_generation_config_has_no_effect(tiny_model_folder, batches, monkeypatch):
    if batches:
        monkeypatch.setattr("diffusecli.sampling.local_engine.choose_rows", lambda _: None)
    hostile = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    assert hostile.model.generation_config.top_k == 2
    clean = load_model(ModelSource(str(tiny_model_folder), device="cpu"), print)
    clean.model.generation_config = type(clean.model.generation_config)(eos_token_id=2)
    settings = SamplingSettings(300, max_new_tokens=3)
    drawn_by = [counts_of(settings, base) for base in (hostile, clean)]
    assert drawn_by[0] == drawn_by[1]
    assert len(drawn_by[0]) > 50


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_generations", 0),
        ("max_new_tokens", 0),
        ("temperature", 0),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("min_p", 1),
        ("seed", -1),
        ("stop", ("",)),
    ],
)
def test_settings_without_meaning_are_refused_by_name(option, value):
    with pytest.raises(InputError, match="-n 0" if option == "n_generations" else "--" + option.replace("_", "-")):
        SamplingSettings(**{option: value})


def generated(path, report=lambda *_: None, max_rows=None):
    """Samples of all prompts in a file."""
    settings = SamplingSettings(40, max_new_tokens=5)
    return generate(
        LocalEngine(BASE, settings, max_rows), PROMPTS, settings, mode="untuned", adapter_sha256=None, path=path, form="counts",
        report=report, notice=lambda _: None,
    )  # fmt: skip


def test_an_interruption_of_prompts_that_go_together_keeps_those_that_are_finished(tmp_path):
    """And the file has the prompts in the order in which they were asked for."""
    whole = generated(tmp_path / "whole.json")
    over = []

    def interrupt(alias, now):
        if now.answers.total() == now.wanted:
            over.append(alias)
        if len(set(over)) == 2:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedRun, match="of 160 samples are kept") as stopped:
        generated(tmp_path / "s.json", interrupt, max_rows=45)
    assert stopped.value.kept.split()[0] == "40", "the second is only reported yet"
    seen = []
    done = generated(tmp_path / "s.json", lambda alias, now: seen.append(alias) if now.rows else None)
    assert PROMPTS[0].alias not in seen, "it is not drawn again"
    assert done.counts == whole.counts
    assert [*json.loads((tmp_path / "s.json").read_text())] == [prompt.alias for prompt in PROMPTS]


@pytest.mark.parametrize(("max_rows", "least", "most"), [(1000, 0.9, 1.1), (7, 0.5, 1.5)])
def test_the_tokens_left_are_those_that_rare_answers_still_need(max_rows, least, most):
    """No answer ends before the limit, so what is left is known as soon as rows stop multiplying, and roughly if rows wait."""
    seen = []
    wanted = Wanted(PROMPT, 30, Answers(), lambda *_: None, lambda now: seen.append((now.tokens_fed, now.tokens_left())))
    LocalEngine(load_forever(), SamplingSettings(30, max_new_tokens=24), max_rows).draw(wanted)
    total, at_the_end = seen[-1]
    assert at_the_end == 0
    off = [left / (total - fed) for fed, left in seen if fed < total and not math.isnan(left)]
    assert len(off) > 15
    assert least < min(off) <= max(off) < most, off


def load_forever():
    """A model that never ends an answer."""
    base = few_tokens()

    def endless(_model, _inputs, out):
        out.logits[..., STOP] = -1e9
        return out

    base.model.register_forward_hook(endless)
    return base
