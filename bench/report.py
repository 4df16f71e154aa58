#!/usr/bin/env python3
"""Turns the JSON that the benchmarks wrote into the tables of bench/README.md, the summary in README.md and the chart docs/performance.svg.

    python3 bench/report.py build/release/bench/results            write both
    python3 bench/report.py build/release/bench/results --check    write nothing; 1 if a target is missed

A benchmark without a result keeps the table it has. The targets stand here and nowhere else.
"""

import argparse
import html
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# file, pattern of the benchmark's name, counter, comparison, bound
TARGETS = [
    ("word_count", r"views/", "vs_idiomatic", ">=", 1.5, "word count, against the idiomatic loop"),
    ("word_count", r"views/", "vs_tuned", ">=", 0.35, "word count, against the loop tuned by hand (SIMD, prefetch)"),
    ("word_count", r"views/2", "vs_one_worker", ">=", 1.7, "word count, two workers against one"),
    ("word_count", r"strings/", "vs_hand", ">=", 0.8, "word count with lambdas over `std::string`, against the equal loop"),
    ("fusion", r"", "vs_hand", ">=", 0.9, "`map.filter.map.reduce`, against the loop by hand"),
    ("fusion", r"", "allocations_per_record", "<=", 0, "allocations a record in that chain"),
    ("batch_interval", r"ticks/.*/records:[01]$", "beyond_bare_p50_us", "<=", 20, "an empty or one-record batch beyond a bare thread, p50, µs"),
    ("batch_interval", r"ticks/interval_us:1000/records:(0|1|1000)$", "lost_ticks", "<=", 0, "ticks lost at 1 ms intervals"),
    ("batch_interval", r"on_arrival", "beyond_bare_p50_us", "<=", 30, "a lone record through `on_arrival` beyond a bare hand-off, p50, µs"),
    ("batch_interval", r"on_arrival", "beyond_bare_p99_us", "<=", 200, "the same, p99, µs"),
    ("window", r"per_second:1000000/slide_ms:60$", "vs_60s", ">=", 0.6, "a window of 60 s that slides every 60 ms, against every 60 s"),
    ("state", r"", "vs_flat", ">=", 0.5, "updates of state by `map_with_state`, against a bare flat table"),
    ("state", r"", "bytes_per_key_ratio", "<=", 1.8, "memory of a state, over the bytes of key and state"),
    ("checkpoint", r"batches/.*/pace_ms:100", "slowdown", "<=", 1.3, "a batch that changes 1 % of 10 million keys, with a checkpoint over without"),
    ("checkpoint", r"batches/.*/pace_ms:100", "stall_beyond_ms", "<=", 5, "longest stall of such a batch beyond a bare `fdatasync`, ms"),
    ("checkpoint", r"recovery/", "vs_read", "<=", 2, "recovery, over reading the same bytes"),
    ("socket", r"", "vs_hand", ">=", 0.5, "lines from a socket, against `recv` and `memchr`"),
    ("kafka", r"consume", "vs_bare", ">=", 0.8, "records of Kafka filtered and counted, with a checkpoint, against a bare consumer"),
    ("kafka", r"produce/at_least_once", "vs_bare", ">=", 0.8, "records written to Kafka, against a bare producer"),
    ("idle", r"", "kib_per_context", "<=", 1024, "memory of an idle context, KiB"),
    ("idle", r"", "busiest_thread_percent", "<=", 1, "busiest thread of 100 idle contexts, % of a core"),
]

# file -> (title, what the figures mean, columns). A column is (counter, heading).
SECTIONS = {
    "word_count": (
        "Word count",
        "Text in memory, `flat_map.map.reduce_by_key`; nanoseconds a word, median of the rounds.",
        [
            ("ns_per_word", "Tidemill, ns"),
            ("idiomatic_ns_per_word", "idiomatic loop, ns"),
            ("tuned_ns_per_word", "tuned loop, ns"),
            ("hand_ns_per_word", "equal loop, ns"),
            ("vs_idiomatic", "vs_idiomatic"),
            ("vs_tuned", "vs_tuned"),
            ("vs_hand", "vs_hand"),
            ("vs_one_worker", "vs_one_worker"),
        ],
    ),
    "fusion": (
        "Fusion",
        "`map.filter.map.reduce` over integers; nanoseconds a record.",
        [
            ("ns_per_record", "Tidemill, ns"),
            ("hand_ns_per_record", "loop by hand, ns"),
            ("vs_hand", "vs_hand"),
            ("allocations_per_record", "allocations a record"),
            ("allocations_per_action", "allocations an action"),
        ],
    ),
    "batch_interval": (
        "Batch interval",
        "Microseconds. Batch: from the tick (on_arrival: from the push) until the output has run, beside a bare thread that "
        "wakes and runs the loop. Latency: from a record's scheduled arrival until the output has run, open loop.",
        [
            ("p50_us", "batch p50"),
            ("p99_us", "p99"),
            ("p999_us", "p99.9"),
            ("bare_p50_us", "bare p50"),
            ("bare_p99_us", "p99"),
            ("bare_p999_us", "p99.9"),
            ("beyond_bare_p50_us", "beyond bare p50"),
            ("beyond_bare_p99_us", "p99"),
            ("lateness_p50_us", "lateness p50"),
            ("scheduling_p50_us", "scheduling delay p50"),
            ("processing_p50_us", "processing p50"),
            ("latency_p50_us", "latency p50"),
            ("latency_p99_us", "p99"),
            ("latency_p999_us", "p99.9"),
            ("bare_latency_p50_us", "bare latency p50"),
            ("bare_latency_p99_us", "p99"),
            ("lost_ticks", "ticks lost"),
            ("vs_hand", "vs_hand"),
        ],
    ),
    "kafka": (
        "Kafka",
        "Records of 100 bytes in 4 partitions of a broker on the same machine; nanoseconds a record. `consume` filters and counts, with "
        "offsets and counts in a checkpoint; `produce` writes batches of 100 000, a transaction each with `exactly_once`. Beside it bare "
        "loops over librdkafka with the same settings. `vs_at_least_once` is what the transactions cost.",
        [
            ("ns_per_record", "Tidemill, ns"),
            ("bare_ns_per_record", "bare, ns"),
            ("vs_bare", "vs_bare"),
            ("at_least_once_ns_per_record", "at least once, ns"),
            ("vs_at_least_once", "vs_at_least_once"),
        ],
    ),
    "window": (
        "Windows",
        "A window of 60 s over 1 000 keys, batches of 60 ms, one thread; throughput against the same with a slide of 60 s.",
        [
            ("vs_60s", "vs_60s"),
            ("ns_per_record", "ns a record"),
            ("records_per_second", "records/s"),
            ("longest_batch_us", "longest batch, µs"),
            ("memory_kib", "memory, KiB"),
        ],
    ),
    "state": (
        "State",
        "Batches of updates through `map_with_state`, beside the same updates of a bare `boost::unordered_flat_map`, which cannot "
        "roll back, expire or be saved. Keys of 8 bytes (`numbers`), 8 to 15 (`texts`) and 16 (`pairs`), states of 24.",
        [
            ("ns_per_update", "Tidemill, ns"),
            ("flat_ns_per_update", "flat table, ns"),
            ("vs_flat", "vs_flat"),
            ("bytes_per_key", "bytes a key"),
            ("bytes_per_key_ratio", "bytes_per_key_ratio"),
        ],
    ),
    "checkpoint": (
        "Checkpoint",
        "`map_with_state` over 10 million keys of 8 bytes (`numbers`) and 16 (`pairs`), states of 24, of which each batch changes 1 %; "
        "milliseconds. `pace_ms`: a batch so often, or (0) one directly after the other. Longest: of a round of batches, in which "
        "snapshots are made. Recovery, and the read beside it, find everything in the cache of the system; the cold read comes from "
        "the disk. `vs_hand`: the time of a loop that reads as many entries, without checksums, into a bare "
        "`boost::unordered_flat_map`, over that of recovery.",
        [
            ("slowdown", "slowdown"),
            ("batch_ms", "batch"),
            ("plain_ms", "without"),
            ("stall_beyond_ms", "stall_beyond_ms"),
            ("longest_ms", "longest"),
            ("plain_longest_ms", "without"),
            ("bare_ms", "bare `fdatasync`"),
            ("bare_longest_ms", "longest"),
            ("vs_read", "vs_read"),
            ("vs_cold_read", "vs_cold_read"),
            ("vs_hand", "vs_hand"),
            ("ms", "recovery"),
            ("read_ms", "read"),
            ("cold_ms", "cold read"),
            ("hand_ms", "by hand"),
            ("mib", "MiB"),
        ],
    ),
    "socket": (
        "Socket",
        "Line text over loopback, counted; beside `recv` and `memchr`.",
        [
            ("gb_per_second", "Tidemill, GB/s"),
            ("hand_gb_per_second", "recv + memchr, GB/s"),
            ("vs_hand", "vs_hand"),
        ],
    ),
    "idle": (
        "Idle contexts",
        "Many streaming contexts in one process with nothing to do.",
        [
            ("kib_per_context", "memory each, KiB"),
            ("bare_kib_per_context", "a bare thread, KiB"),
            ("threads_per_context", "threads each"),
            ("cpu_us_per_second", "processor time each, µs/s"),
            ("busiest_thread_percent", "busiest thread, %"),
        ],
    ),
}


def load(folder):
    results = {}
    for path in sorted(pathlib.Path(folder).glob("*.json")):
        results[path.stem] = json.loads(path.read_text())
    return results


def runs(result):
    """The benchmarks of one file that ran, by short name."""
    found = {}
    for run in result["benchmarks"]:
        if run.get("run_type", "iteration") == "iteration" and not run.get("error_occurred"):
            found[short(run["name"])] = run
    return found


def short(name):
    """The name without what Google Benchmark appends: iterations and manual time are the same for all of ours."""
    return re.sub(r"/(iterations:\d+|manual_time|real_time)(?=/|$)", "", name)


def figure(value):
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.1g}"


def meets(value, comparison, bound):
    return value >= bound if comparison == ">=" else value <= bound


def verdicts(results):
    """(file, benchmark, counter, value, comparison, bound, met) for every target and benchmark that it applies to."""
    for file, pattern, counter, comparison, bound, _ in TARGETS:
        for name, run in runs(results[file]).items() if file in results else ():
            if re.search(pattern, name) and counter in run:
                yield file, name, counter, run[counter], comparison, bound, meets(run[counter], comparison, bound)


def table(rows):
    """Aligned Markdown: the first row is the heading, the first column is text, the others are numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
        if number == 0:
            rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
            lines.append("| " + " | ".join(rule) + " |")
    return "\n".join(lines)


def section(file, result, judged):
    known = SECTIONS.get(file)
    found = runs(result)
    counters = {key for run in found.values() for key in run}
    title, meaning, columns = known if known else (file, "", [(counter, counter) for counter in sorted(counters)])
    columns = [column for column in columns if column[0] in counters]
    rows = [["benchmark"] + [heading for _, heading in columns]]
    for name, run in found.items():
        cells = []
        for counter, _ in columns:
            cell = figure(run.get(counter))
            for _, _, _, _, comparison, bound, met in (
                verdict for verdict in judged if verdict[:3] == (file, name, counter)
            ):
                sign = "≥" if comparison == ">=" else "≤"
                cell = f"**{cell}** ({sign} {bound:g})" if met else f"**{cell}** (missed: {sign} {bound:g})"
            cells.append(cell)
        rows.append([f"`{name}`"] + cells)
    context = result["context"]
    machine = (
        f"{context.get('cpu', 'unknown processor')}, {context['num_cpus']} cores; {context.get('compiler', '')}, "
        f"`{context.get('flags', '')}`; commit {context.get('commit', 'unknown')}, {context['date'][:10]}."
    )
    return f"### {title}\n\n{meaning}\n\n{table(rows)}\n\n{machine}\n"


def summary(results):
    """For the README: of each target the worst figure."""
    rows = [["measured", "figure", "target"]]
    machine = ""
    for file, pattern, counter, comparison, bound, label in TARGETS:
        values = [
            run[counter]
            for name, run in (runs(results[file]).items() if file in results else ())
            if re.search(pattern, name) and counter in run
        ]
        if values:
            worst = min(values) if comparison == ">=" else max(values)
            rows.append([label, figure(worst), f"{'≥' if comparison == '>=' else '≤'} {bound:g}"])
            context = results[file]["context"]
            machine = f"{context.get('cpu', 'unknown processor')}, {context['num_cpus']} cores; {context.get('compiler', '')}."
    return f"{table(rows)}\n\n{machine} Of several runs of a benchmark (sizes, numbers of workers) the worst is shown.\n\n![Charts of these figures](docs/performance.svg)\n"


def replace_between(text, name, content):
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if begin not in text or end not in text:
        raise SystemExit(f"bench/report.py: the page lacks the markers {begin} and {end}")
    head, rest = text.split(begin, 1)
    return head + begin + "\n" + content + end + rest.split(end, 1)[1]


# ----------------------------------------------------------------------------------------------------- chart

STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .note, .axis { font-size: 11px; fill: #59636e; }
  .ours { fill: #0b7285; }
  .limit { fill: #9aa4ae; }
  .line { stroke: #59636e; stroke-width: 1; stroke-dasharray: 3 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .note, .axis { fill: #9198a1; }
    .ours { fill: #3bc9db; }
    .limit { fill: #656c76; }
    .line { stroke: #9198a1; }
  }
"""

# label, file, benchmark, counter: our speed as a multiple of the speed of the loop
SPEEDS = [
    ("word count / idiomatic loop, 1 worker", "word_count", "views/1", "vs_idiomatic"),
    ("word count / idiomatic loop, 2 workers", "word_count", "views/2", "vs_idiomatic"),
    ("word count / SIMD-tuned loop, 1 worker", "word_count", "views/1", "vs_tuned"),
    ("user lambdas over std::string / same loop", "word_count", "strings/1", "vs_hand"),
    ("map.filter.map.reduce / same loop", "fusion", "cheap/16777216", "vs_hand"),
    ("lines over a socket / recv + memchr", "socket", "ticks", "vs_hand"),
]

# label, file, benchmark, our counter, the bare thread's
LATENCIES = [
    ("empty batch, 1 ms ticks, p50", "batch_interval", "ticks/interval_us:1000/records:0", "p50_us", "bare_p50_us"),
    ("1 record, 1 ms ticks, p50", "batch_interval", "ticks/interval_us:1000/records:1", "p50_us", "bare_p50_us"),
    ("1 000 records, 1 ms ticks, p50", "batch_interval", "ticks/interval_us:1000/records:1000", "p50_us", "bare_p50_us"),
    ("lone record, on_arrival, p50", "batch_interval", "on_arrival", "p50_us", "bare_p50_us"),
    ("lone record, on_arrival, p99", "batch_interval", "on_arrival", "p99_us", "bare_p99_us"),
]


class Drawing:
    def __init__(self, width):
        self.width, self.y, self.parts = width, 0, []

    def text(self, x, y, what, style="", anchor="start"):
        kind = f' class="{style}"' if style else ""
        self.parts.append(f'<text x="{x:.0f}" y="{y:.0f}"{kind} text-anchor="{anchor}">{html.escape(what)}</text>')

    def bar(self, x, y, width, height, style):
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height}" rx="2" class="{style}"/>'
        )

    def line(self, x, top, bottom):
        self.parts.append(f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" class="line"/>')

    def finish(self, alternative):
        height = self.y + 8
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{height}" '
            f'viewBox="0 0 {self.width} {height}" role="img" aria-label="{html.escape(alternative)}">\n'
            f"<style>{STYLE}</style>\n" + "\n".join(self.parts) + "\n</svg>\n"
        )


def chart(results):
    """One picture: speed beside hand-written loops, then latency beside a bare thread."""

    def value(file, name, counter):
        return runs(results[file]).get(name, {}).get(counter) if file in results else None

    speeds = [(label, value(file, name, counter)) for label, file, name, counter in SPEEDS]
    speeds = [(label, ratio) for label, ratio in speeds if ratio is not None]
    latencies = [
        (label, value(file, name, ours), value(file, name, bare)) for label, file, name, ours, bare in LATENCIES
    ]
    latencies = [row for row in latencies if None not in row]

    drawing = Drawing(760)
    left, right = 290, 690
    if speeds:
        scale = (right - left) / max(2.0, *(ratio for _, ratio in speeds))
        drawing.text(8, 22, "Speed beside loops written by hand", "title")
        drawing.text(8, 40, "1 = as fast as the loop; longer is faster. Same process, same input, in turn.", "note")
        top = drawing.y = 62
        for label, ratio in speeds:
            drawing.text(left - 10, drawing.y + 13, label, anchor="end")
            drawing.bar(left, drawing.y, ratio * scale, 18, "ours")
            drawing.text(left + ratio * scale + 6, drawing.y + 13, f"{ratio:.2f}")
            drawing.y += 26
        drawing.line(left + scale, top - 6, drawing.y)
        drawing.text(left + scale, drawing.y + 12, "the loop", "axis", "middle")
        drawing.y += 28
    if latencies:
        scale = (right - left) / max(max(ours, bare) for _, ours, bare in latencies)
        drawing.text(8, drawing.y + 22, "Latency of a batch, microseconds", "title")
        drawing.text(8, drawing.y + 40, "From the tick, or the push, until the output ran; shorter is better. Grey: a bare "
                     "thread that wakes and runs the loop.", "note")
        drawing.y += 58
        for label, ours, bare in latencies:
            drawing.text(left - 10, drawing.y + 18, label, anchor="end")
            drawing.bar(left, drawing.y, ours * scale, 12, "ours")
            drawing.bar(left, drawing.y + 13, bare * scale, 12, "limit")
            drawing.text(left + ours * scale + 6, drawing.y + 11, figure(ours))
            drawing.text(left + bare * scale + 6, drawing.y + 24, figure(bare), "note")
            drawing.y += 34
    machine = next(iter(results.values()))["context"]
    drawing.text(8, drawing.y + 14, f"{machine.get('cpu', '')}, {machine['num_cpus']} cores; {machine.get('compiler', '')}; "
                 "bench/README.md has all figures.", "note")
    drawing.y += 20
    return drawing.finish("Tidemill's speed beside loops written by hand, and its latency beside a bare thread")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("results", help="folder with one <benchmark>.json each")
    arguments.add_argument("--check", action="store_true", help="only compare with the targets")
    arguments = arguments.parse_args()

    results = load(arguments.results)
    if not results:
        raise SystemExit(f"bench/report.py: no *.json in {arguments.results}; bench/run.sh makes them")
    tiny = [file for file, result in results.items() if result["context"].get("smoke") == "yes"]
    if tiny:
        raise SystemExit(f"bench/report.py: {', '.join(tiny)}: made by a smoke run, which has no figures to report")
    judged = list(verdicts(results))
    for file, name, counter, value, comparison, bound, met in judged:
        print(f"{'met   ' if met else 'MISSED'}  bench_{file} {name}: {counter} = {figure(value)} ({comparison} {bound:g})")

    if arguments.check:
        return 0 if all(met for *_, met in judged) else 1
    readme = ROOT / "bench" / "README.md"
    text = readme.read_text()
    for file, result in results.items():
        text = replace_between(text, file, section(file, result, judged))
    readme.write_text(text)
    if all(file in results for _, file, *_ in SPEEDS + LATENCIES):  # a partial run does not speak for the whole
        (ROOT / "docs" / "performance.svg").write_text(chart(results))
    if all(file in results for file in SECTIONS):
        front = ROOT / "README.md"
        front.write_text(replace_between(front.read_text(), "performance", summary(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
