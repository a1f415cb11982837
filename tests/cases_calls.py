"""Lines for what the compiler is told, and where calls, callbacks and references are tested."""

from __future__ import annotations

from cases import Case, bind, case, normal

CASES: list[Case] = [
    case("xla_metadata_value", bind("xla_metadata_value", xla_metadata_kvs=(("a", "b"),)), normal(3)),
]

ELSEWHERE = {
    **dict.fromkeys(("eval_jaxpr", "composite", "custom_vmap_call", "remat_opt", "xla_metadata_call", "compute_on", "fused_call",
                     "program_order", "shard_alike", "linear_call", "pure_callback", "io_callback", "buffer_callback", "ffi_call",
                     "check", "dce_sink", "stage"), "test_calls.py"),
    **dict.fromkeys(("host_local_array_to_global_array", "global_array_to_host_local_array"), "test_calls.py"),
    "sampled_product": "test_estimators.py",
    **dict.fromkeys(("pallas_call", "masked_load", "masked_swap"), "test_kernels.py"),
    **dict.fromkeys(("new_ref", "empty_ref", "free_ref", "freeze", "get", "swap", "addupdate", "run_state"), "test_references.py"),
}
