"""Collectives read from the text of a program."""

from miras.parallel.collectives import between_slices, collectives

TEXT = """\
HloModule jit_step

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %a = bf16[4,8]{1,0} all-gather(%x), dimensions={0}, metadata={op_name="jit(f)/while/body/mul"}
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%made, \
metadata={op_name="jit(f)/while/body/dot"}
}

%made (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %c = f32[8]{0} collective-permute(%y), metadata={op_name="jit(f)/while/body/dot"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]) while(%t), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %r = (f32[8]{0}, f32[2]{0}) all-reduce-start(%z, %v), replica_groups={{0,1}}, to_apply=%add
  %o = f32[8]{0} all-reduce(%v), channel_id=1, replica_groups={{0},{1}}, to_apply=%add
  %i = f32[8]{0} all-reduce(%v), channel_id=2, replica_groups=[2,1]<=[2], to_apply=%add
  %s = (f32[4,128]{1,0:T(4,128)}, u32[], token[]) send(%r, %after), is_host_transfer=true, \
frontend_attributes={_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}
}
"""


def test_collectives_in_loops_of_the_source_and_of_the_compiler():
    gather, permute, pair = collectives(TEXT)
    assert gather == ("all-gather", 64, 1, 3, "jit(f)/while/body/mul")
    assert (permute.kind, permute.bytes, permute.loops) == ("collective-permute", 32, 2)
    assert (gather.depth, permute.depth, pair.depth) == (1, 1, 0)
    assert (pair.kind, pair.bytes) == ("all-reduce", 32)


CONDITION = """\
%cond (p: (s32[], f32[8])) -> pred[] {
  %n = s32[]{:T(128)} constant(24), backend_config={"flag_configs":[]}
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT, metadata={op_name="while/cond/lt"}
}

"""


def test_passes_of_a_loop_are_read_from_its_condition_where_the_compiler_does_not_write_them():
    """As the text of a program for TPUs has them."""
    unknown = TEXT.replace('{"known_trip_count":{"n":"3"}}', "{}")
    assert [found.runs for found in collectives(unknown)] == [1, 1, 1]
    text = unknown.replace("%body (p:", CONDITION + "%body (p:", 1)
    assert [found.runs for found in collectives(text)] == [24, 24 * 24, 1]


def test_all_loops_count_in_programs_without_names():
    unnamed = "\n".join(line.partition(", metadata=")[0] for line in TEXT.splitlines())
    assert [found.depth for found in collectives(unnamed)] == [1, 2, 0]


def test_what_leaves_a_slice():
    assert between_slices(TEXT) == [("all-reduce", 4 * 128 * 4)]
