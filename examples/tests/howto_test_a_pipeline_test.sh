# The tests that docs/howto/test-your-pipeline.md shows.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cat > "$work/expected" << 'END'
words are counted within a batch and never across: ok
the answer does not depend on the number of threads: ok
orders are joined with the prices of the same interval: ok
functions are told the time of the batch: ok
print shows the first records under the time of the batch: ok
a failed batch does not stop the ones after it: ok
a listener hears how many records each batch had: ok
a lone record is a batch when the gate opens on arrival: ok
END
expect_status 0 "$program"
expect_same "$work/expected" "$work/run.out" "the tests of a pipeline"
passed "the tests of a pipeline"
