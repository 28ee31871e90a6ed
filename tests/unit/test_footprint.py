"""What an engine needs, from generated configurations and headers, against sizes that are known from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import VllmLauncher
from roundhouse.footprint import estimate, overhead
from roundhouse.footprint.cache import Cache
from roundhouse.footprint.card import shown_bytes
from roundhouse.footprint.estimate import Estimate
from roundhouse.footprint.files import SHIPPED
from roundhouse.footprint.flags import FlagsError, parse
from roundhouse.footprint.headers import Tensor
from roundhouse.footprint.loading import loading_bytes
from roundhouse.footprint.need import GIB, MIB
from roundhouse.footprint.pinned import pinned_bytes
from roundhouse.footprint.quantisation import AWQ, BF16, quantisation
from roundhouse.footprint.shapes import shapes
from roundhouse.footprint.weights import from_shapes, total
from tests.support import models

CONFIGS: dict[str, dict[str, Any]] = json.loads(SHIPPED.read_text(encoding="utf-8"))
VL, TEXT, CODER = (f"Qwen/Qwen2.5-{it}-Instruct" for it in ("VL-7B", "14B", "Coder-7B"))
CARD = int(15.48 * GIB)
COMMON = ("--max-num-batched-tokens=2048",)
LOW = ("--gpu-memory-utilization=0.1",)
ARGS = {
    VL: (
        *COMMON,
        "--max-num-seqs=8",
        '--limit-mm-per-prompt={"image":2,"video":0}',
        "--mm-processor-kwargs.max_pixels=1003520",
    ),
    TEXT: (*COMMON, "--max-num-seqs=4"),
    CODER: (*COMMON, "--max-num-seqs=8"),
}

WEIGHTS_GIB = {
    (VL, "bf16"): 15.445,
    (VL, "fp8"): 9.37,
    (VL, "int8"): 9.52,
    (VL, "awq"): 6.45,
    (TEXT, "bf16"): 27.511,
    (TEXT, "fp8"): 15.21,
    (TEXT, "int8"): 15.50,
    (TEXT, "awq"): 9.30,
    (CODER, "bf16"): 14.185,
    (CODER, "fp8"): 8.11,
    (CODER, "int8"): 8.26,
    (CODER, "awq"): 5.19,
}
"""From the shapes, by hand; bf16 is what the hub's index says."""

TOKENS = {
    (VL, "awq"): ((95e3, 191e3), (116e3, 232e3), (98e3, 196e3)),
    (VL, "fp8"): ((41e3, 82e3), (61e3, 122e3), (43e3, 86e3)),
    (TEXT, "awq"): ((14.5e3, 29.1e3), (20.5e3, 40.9e3), (15.2e3, 30.4e3)),
    (CODER, "int8"): ((69e3, 139e3), (90e3, 179e3), (72e3, 143e3)),
    (CODER, "fp8"): ((72e3, 144e3), (92e3, 185e3), (74e3, 149e3)),
    (CODER, "awq"): ((127e3, 254e3), (147e3, 294e3), (129e3, 258e3)),
}
"""Tokens at fp16 and fp8 on 15.48 GiB: at a share of 0.85, of 0.92, and beside two sleepers of 0.9 GiB and a desktop
of 0.4 GiB; by hand, with 1.2 GiB beside weights and cache, 1.6 GiB where there are pictures."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        key: models.write_qwen(root / "-".join(key).replace("/", "_"), CONFIGS[key[0]], key[1]) for key in WEIGHTS_GIB
    }


def of(folder: Path, name: str, *more: str) -> Estimate:
    return estimate.of(str(folder), (*ARGS[name], *more), CARD)


@pytest.mark.parametrize("key", list(WEIGHTS_GIB), ids="-".join)
def test_weights_are_right_within_a_hundredth_by_headers_and_by_shapes(
    folders: dict[tuple[str, str], Path], key: tuple[str, str]
) -> None:
    by_headers = of(folders[key], key[0]).weights
    config = json.loads((folders[key] / "config.json").read_text())
    by_shapes = total(from_shapes(shapes(config), quantisation(config, None, "auto")))
    assert by_headers == pytest.approx(WEIGHTS_GIB[key] * GIB, rel=0.01)
    assert by_shapes == pytest.approx(by_headers, rel=0.01)


@pytest.mark.parametrize(("name", "parameters"), [(VL, 8_292_166_656), (TEXT, 14_770_033_664), (CODER, 7_615_616_512)])
def test_shapes_give_every_parameter(name: str, parameters: int) -> None:
    assert sum(it.count for it in from_shapes(shapes(CONFIGS[name]), BF16)) == parameters


@pytest.mark.parametrize(("name", "each"), [(VL, 57_344), (TEXT, 196_608), (CODER, 57_344)])
def test_a_token_takes_keys_and_values_of_every_layer(
    folders: dict[tuple[str, str], Path], name: str, each: int
) -> None:
    cache = of(folders[name, "awq"], name).cache
    assert cache is not None
    assert (cache.per_token(16), cache.per_token(8)) == (each, each // 2)


@pytest.mark.parametrize("key", list(TOKENS), ids="-".join)
def test_tokens_are_right_within_a_twentieth(folders: dict[tuple[str, str], Path], key: tuple[str, str]) -> None:
    it = of(folders[key], key[0])
    assert it.cache is not None
    assert it.weights is not None
    rooms = (CARD * 0.85, CARD * 0.92, CARD - 2 * 0.9 * GIB - 0.4 * GIB)
    for room, expected in zip(rooms, TOKENS[key], strict=True):
        found = [it.cache.holds(int(room) - it.weights - it.overhead, bits) for bits in (16, 8)]
        assert found == pytest.approx(expected, rel=0.05)


def test_a_sleeper_keeps_nine_tenths_of_a_gib_and_less_without_graphs(folders: dict[tuple[str, str], Path]) -> None:
    folder = folders[TEXT, "awq"]
    assert of(folder, TEXT).residual == pytest.approx(0.9 * GIB, rel=0.01)
    for eager in ("--enforce-eager", "-O0"):
        assert of(folder, TEXT, eager).residual == of(folder, TEXT).residual - overhead.GRAPHS_BYTES


def test_awake_is_the_share_that_vllm_takes_whatever_the_model(folders: dict[tuple[str, str], Path]) -> None:
    for key in ((TEXT, "awq"), (CODER, "awq")):
        awake = of(folders[key], key[0], "--gpu-memory-utilization=0.85").awake(CARD)
        assert awake == pytest.approx(0.85 * CARD + overhead.CONTEXT_BYTES, abs=1)


def test_awake_with_a_cache_of_given_size_is_the_sum_of_the_parts(folders: dict[tuple[str, str], Path]) -> None:
    it = of(folders[CODER, "awq"], CODER, "--kv-cache-memory-bytes=4G", "--gpu-memory-utilization=0.5")
    assert it.weights is not None
    assert it.awake(CARD) == it.weights + 4 * GIB + it.overhead


def test_a_given_cache_does_not_lower_what_vllm_wants_to_be_free(folders: dict[tuple[str, str], Path]) -> None:
    it = of(folders[CODER, "awq"], CODER, "--kv-cache-memory-bytes=1G")
    assert it.awake(CARD) == of(folders[CODER, "awq"], CODER).awake(CARD)


def test_pictures_at_the_models_own_limit_take_gigabytes(folders: dict[tuple[str, str], Path]) -> None:
    folder = str(folders[VL, "awq"])
    small = of(folders[VL, "awq"], VL).peak
    free = estimate.of(folder, ("--max-num-seqs=8",), CARD).peak
    none = estimate.of(folder, ("--max-num-seqs=8", "--limit-mm-per-prompt.image=0"), CARD).peak
    assert none < small < 1 * GIB < 3 * GIB < free


def test_the_processors_own_limit_counts(folders: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = models.write_qwen(tmp_path / "vl", CONFIGS[VL], "awq")
    (folder / "preprocessor_config.json").write_text('{"max_pixels": 1003520}')
    assert estimate.of(str(folder), ARGS[VL][:3], CARD).peak == of(folder, VL).peak


def test_pinned_ram_of_a_model_in_16_bits_is_what_was_reported() -> None:
    """Qwen3-8B: about 22 GiB of RAM for 15 GiB of weights (vLLM issue 48337)."""
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    }
    tensors = from_shapes(shapes(config), BF16)
    assert total(tensors) == pytest.approx(15.26 * GIB, rel=0.01)
    assert pinned_bytes(tensors) == pytest.approx(21.5 * GIB, rel=0.05)


def test_pinned_blocks_are_powers_of_two() -> None:
    assert pinned_bytes([Tensor("a", "U8", (), 65 * MIB)]) == 128 * MIB
    assert pinned_bytes([Tensor("a", "U8", (), 64 * MIB)]) == 64 * MIB
    assert pinned_bytes([Tensor(f"{i}", "U8", (), 6 * MIB) for i in range(3)]) == 32 * MIB
    assert pinned_bytes([Tensor(f"{i}", "U8", (), 1000) for i in range(10)]) == 2 * MIB
    assert pinned_bytes([]) == 0


def test_pinned_blocks_are_what_was_asked_for_where_pinning_is_exact() -> None:
    assert pinned_bytes([Tensor("a", "U8", (), 65 * MIB)], exact=True) == 66 * MIB
    assert pinned_bytes([Tensor(f"{i}", "U8", (), 6 * MIB) for i in range(3)], exact=True) == 20 * MIB
    assert pinned_bytes([Tensor(f"{i}", "U8", (), 1000) for i in range(10)], exact=True) == 2 * MIB
    assert pinned_bytes([], exact=True) == 0


@pytest.mark.parametrize(("name", "gib"), [(VL, 6.95), (TEXT, 9.56), (CODER, 5.37)])
def test_exact_pinning_takes_little_more_than_the_weights(name: str, gib: float) -> None:
    it = estimate.of(f"{name}-AWQ", ARGS[name], CARD, exact_pinning=True)
    assert it.pinned == pytest.approx(gib * GIB, rel=0.002)
    assert it.with_flags(CARD, max_num_seqs=2).pinned == it.pinned
    full = estimate.of(name, ARGS[name], CARD, exact_pinning=True).as_awq(CARD)
    assert full is not None
    assert full.pinned == it.pinned


def test_pinned_is_between_the_weights_and_twice_of_them(folders: dict[tuple[str, str], Path]) -> None:
    for key, folder in folders.items():
        it = of(folder, key[0])
        assert it.weights is not None
        assert it.pinned is not None
        assert it.weights < it.pinned < 2.05 * it.weights


def test_quantising_while_loading_halves_the_linear_layers(folders: dict[tuple[str, str], Path]) -> None:
    loaded = of(folders[CODER, "bf16"], CODER, "--quantization=fp8")
    assert loaded.weights == pytest.approx(WEIGHTS_GIB[CODER, "fp8"] * GIB, rel=0.01)


def test_weights_in_32_bits_are_loaded_in_16(tmp_path: Path) -> None:
    config = CONFIGS[CODER] | {"num_hidden_layers": 2}
    wide = [Tensor(it.name, "F32", it.shape, it.count * 4) for it in models.qwen(config, "bf16")]
    folder = models.write_model(tmp_path / "wide", config, wide)
    as_they_are = estimate.of(str(folder), ["--dtype=float32"]).weights
    assert as_they_are == total(wide)
    assert estimate.of(str(folder)).weights == total(wide) // 2


def test_a_tied_output_layer_is_not_loaded_twice(tmp_path: Path) -> None:
    config = CONFIGS[CODER] | {"num_hidden_layers": 2}
    untied = models.qwen(config, "bf16")
    folder = models.write_model(tmp_path / "tied", config | {"tie_word_embeddings": True}, untied)
    assert estimate.of(str(folder)).weights == total(it for it in untied if it.name != "lm_head.weight")


def test_missing_shards_are_counted_by_the_index(folders: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    folder = models.write_qwen(tmp_path / "half", CONFIGS[CODER], "awq")
    next(folder.glob("*2-of*")).unlink()
    it = estimate.of(str(folder))
    assert it.weights == of(folders[CODER, "awq"], CODER).weights
    assert it.unknown == ("1 of 2 weight files are not here: their size is from the index",)
    exact = estimate.of(str(folder), exact_pinning=True)
    assert it.weights is not None
    assert exact.pinned is not None
    assert it.weights < exact.pinned < 1.1 * it.weights


VLLM_LONGEST = {
    "qwen-vl-7b": 74_880,
    "qwen-14b": 27_280,
    "qwen-coder-7b": 74_880,
    "qwen-vl-3b": 14_544,
    "qwen-3b": 43_664,
    "qwen-coder-3b": 43_664,
    "qwen-32b": 16_880,
}
"""What vLLM 0.32 for CUDA calls the estimated maximum model length, with the caches that we ship."""


@pytest.mark.parametrize("profile", paths.FOR_A_CARD)
def test_the_longest_context_is_vllms_own_and_what_we_ship_is_below_it(profile: paths.Profile) -> None:
    for name, entry in load_settings(paths.default_config_file(profile)).models.items():
        if not isinstance(entry.launcher, VllmLauncher):
            continue
        it = estimate.of(entry.launcher.model, entry.launcher.args, CARD)
        assert it.cache is not None
        assert it.flags.kv_cache_memory_bytes is not None
        assert it.cache.holds(it.flags.kv_cache_memory_bytes, it.flags.kv_bits) == VLLM_LONGEST[name]
        assert it.context is not None
        assert it.context <= VLLM_LONGEST[name]


def test_vllm_keeps_a_block_back_and_hands_out_whole_ones(folders: dict[tuple[str, str], Path]) -> None:
    """With exactly 2 GiB for 16 384 tokens of 128 KiB, vLLM says that 16 368 fit, and does not start."""
    cache = Cache(numbers=2 * 8 * 128, layers=64)
    assert cache.holds(2 * GIB, 8) == 16_368
    assert cache.needed(16_368, 8) == 2 * GIB
    assert cache.needed(16_369, 8) == cache.needed(16_384, 8) == 2 * GIB + 2 * MIB
    exact = of(folders[TEXT, "awq"], TEXT, "--max-model-len=8192", "--kv-cache-memory-bytes=1536M", *LOW)
    one_more = of(folders[TEXT, "awq"], TEXT, "--max-model-len=8192", "--kv-cache-memory-bytes=1539M", *LOW)
    assert (exact.fits_in(CARD, CARD), one_more.fits_in(CARD, CARD)) == (False, True)


def test_the_block_is_the_one_that_was_asked_for() -> None:
    for args, block in (((), 16), (("--block-size=64",), 64)):
        cache = estimate.of("Qwen/Qwen2.5-14B-Instruct-AWQ", args, CARD).cache
        assert cache is not None
        assert (cache.block, cache.needed(1, 16)) == (block, 2 * block * 196_608)


WINDOWS = {
    # full, windowed layers, window, step, block: bytes and the longest context in them, as vLLM 0.32 has it
    (5, 29, 1024, 2048, 16): ((2**28, 21_584), (2**30, 178_880), (2**24, 448)),
    (21, 21, 4096, 2048, 16): ((2**28, 6_224), (2**30, 41_696), (2**24, 368)),
    (10, 52, 1024, 2048, 16): ((2**28, 3_728), (2**30, 74_016), (2**24, 208)),
    (12, 13, 128, 512, 32): ((2**28, 18_944), (2**30, 79_424), (2**24, 576)),
    (12, 17, 100, 500, 16): ((2**28, 14_272), (2**30, 60_544), (2**24, 464)),
    (12, 18, 100, 500, 16): ((2**28, 19_584), (2**30, 85_120), (2**24, 432)),
    (36, 3, 1000, 2048, 16): ((2**28, 6_848), (2**30, 28_688), (2**24, 416)),
    (0, 32, 4096, 2048, 16): ((2**28, 8_160), (2**30, None), (2**24, 480)),
}


@pytest.mark.parametrize("key", list(WINDOWS), ids=str)
def test_windows_bound_the_cache_as_they_do_in_vllm(key: tuple[int, int, int, int, int]) -> None:
    full, windowed, window, step, block = key
    cache = Cache(512, full, windowed, window, step, block)
    for size, tokens in WINDOWS[key]:
        assert cache.holds(size, 16) == tokens
        if tokens is not None:
            assert cache.needed(tokens, 16) <= size < cache.needed(tokens + 1, 16)


def test_a_cache_too_small_for_a_block_holds_nothing() -> None:
    assert Cache(512, 5, 29, 1024, 2048).holds(-5, 16) == Cache(512, 12).holds(100, 16) == 0


LOADING_GIB = {VL: 1.95, TEXT: 2.31, CODER: 1.95}
"""Nine bytes a weight, for each shape of linear layer: queries with keys and values, output, gate with up, down."""


@pytest.mark.parametrize("name", list(LOADING_GIB))
def test_loading_awq_takes_room_beside_the_weights(folders: dict[tuple[str, str], Path], name: str) -> None:
    by_headers = of(folders[name, "awq"], name)
    by_shapes = loading_bytes(from_shapes(shapes(CONFIGS[f"{name}-AWQ"]), AWQ), AWQ)
    assert by_headers.loading == by_shapes == pytest.approx(LOADING_GIB[name] * GIB, rel=0.01)
    assert [of(folders[name, it], name).loading for it in ("bf16", "fp8")] == [0, 0]


def test_experts_are_repacked_without_being_unpacked() -> None:
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 151936,
        "num_experts": 128,
        "moe_intermediate_size": 768,
    }
    experts, attention = 128 * 2048 * (2 * 768 + 768), 9 * 2048 * (5120 + 4096)
    assert loading_bytes(from_shapes(shapes(config), AWQ), AWQ) == experts + attention


def test_what_loading_takes_counts_where_it_is_more_than_what_comes_after() -> None:
    big = estimate.of("Qwen/Qwen2.5-32B-Instruct-AWQ", ("--max-num-seqs=4", "--kv-cache-memory-bytes=1G", *LOW))
    small = estimate.of("Qwen/Qwen2.5-3B-Instruct-AWQ", ("--max-num-seqs=4", "--kv-cache-memory-bytes=1G", *LOW))
    assert big.awake(24 * GIB) == big.loaded == pytest.approx(22.44 * GIB, rel=0.001)
    assert big.fits_in(24 * GIB, 22 * GIB) is False
    assert small.loaded is not None
    assert small.awake(24 * GIB) == small.working(24 * GIB) > small.loaded


def test_graphs_that_go_to_ram_leave_a_part_of_themselves_on_the_card() -> None:
    def sized(*args: str) -> Estimate:
        return estimate.of("Qwen/Qwen2.5-14B-Instruct-AWQ", args, CARD)

    stays, goes = sized(), sized("--sleep-mode-offload-cudagraph")
    assert goes.residual == stays.residual - overhead.GRAPHS_OFFLOADED_BYTES
    assert stays.pinned is not None
    assert goes.pinned == stays.pinned + overhead.GRAPHS_BYTES
    eager = sized("--enforce-eager", "--sleep-mode-offload-cudagraph")
    assert (eager.residual, eager.pinned) == (sized("--enforce-eager").residual, stays.pinned)


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--max-model-len", "32k"], "max_model_len", 32_000),
        (["--max_model_len=32K"], "max_model_len", 32_768),
        (["--max-model-len=auto"], "any_length", True),
        (["--kv-cache-memory-bytes=3G"], "kv_cache_memory_bytes", 3 * GIB),
        (["--kv-cache-dtype", "fp8_e5m2"], "kv_bits", 8),
        (["--limit-mm-per-prompt", '{"image": {"count": 3}}'], "images", 3),
        (["-q", "awq"], "quantization", "awq"),
        (["--some-future-flag", "x", "--enforce-eager"], "enforce_eager", True),
    ],
)
def test_arguments_are_read_as_vllm_reads_them(args: list[str], field: str, value: object) -> None:
    assert getattr(parse(args), field) == value


@pytest.mark.parametrize(
    "args",
    [
        ["--max-model-len=long"],
        ["--max-num-seqs=-3"],
        ["--gpu-memory-utilization=85"],
        ["--gpu-memory-utilization=nan"],
        ["--mm-processor-kwargs=[1]"],
        ["--kv-cache-memory-bytes"],
    ],
)
def test_an_argument_that_vllm_would_not_take_is_named(args: list[str]) -> None:
    with pytest.raises(FlagsError, match=args[0].split("=")[0]) as error:
        parse(args)
    assert "\n" not in str(error.value)


def test_a_whole_number_of_gib_is_the_size_on_the_box() -> None:
    assert shown_bytes(16 * GIB) == pytest.approx(15.48 * GIB)
    assert shown_bytes(CARD) == CARD


def test_the_launcher_has_no_argument_that_it_cannot_read() -> None:
    assert parse(VllmLauncher(kind="vllm", port=1, model="x").args).gpu_memory_utilization == 0.92
