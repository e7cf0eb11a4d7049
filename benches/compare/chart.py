"""Draws results as small bar charts, one for each figure, to be read on light and on dark backgrounds.

    chart.py RESULTS.json > chart.svg
"""

import statistics
import sys
from xml.sax.saxutils import escape

import figures
import report
from figures import RECEIVED, SENT

# What a panel shows: its title, and the value of a proxy's cell with its label.
MORE, LESS = "more is better", "less is better"
COLUMNS, PANEL_WIDTH, GAP = 2, 400, 36
NAME_WIDTH, VALUE_WIDTH, BAR_HEIGHT, BAR_STEP, TITLE_HEIGHT = 70, 80, 12, 19, 26

# Where a row's name is too long for a panel.
TITLES = {"http2": "HTTP/2 requests/s, 16 × 32 streams", "grpc": "gRPC calls/s, mTLS on both sides"}

STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
  .title { font-weight: 600 } .note, .name { fill: #57606a } .end { text-anchor: end }
  .ours { fill: #0969da } .peer { fill: #afb8c1 } .own { font-weight: 600; fill: #24292f }
  @media (prefers-color-scheme: dark) {
    text, .own { fill: #e6edf3 } .note, .name { fill: #8d96a0 } .ours { fill: #4493f8 } .peer { fill: #565f6b }
  }
"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    run = report.Run(report.read(sys.argv[1]))
    print(draw(panels(run)))


def panels(run):
    """`(title, note, [(proxy, value, label)])` of each figure that was measured."""
    found = []
    for key in ("full-x25519", "full-hybrid", "resumed", "http1", "http2", "grpc", "down", "up"):
        figure = next(figure for figure in figures.ROUNDS if figure.key == key)
        bars = [(proxy, cell.value, label(figure, cell.value)) for proxy, cell in by_proxy(run, figure) if not cell.failed]
        found.append((TITLES.get(key, figure.name), MORE, bars))
    open_loop = next(figure for figure in figures.ROUNDS if figure.key == "open-20000")
    times = [(proxy, cell.latency("p99"), f"{cell.latency('p99'):.2f} ms") for proxy, cell in by_proxy(run, open_loop) if cell.kept_up]
    found.append(("p99 at 20,000 requests/s, open loop", LESS, times))
    idle = []
    for proxy in run.proxies:
        sizes = [sample["requested_kb"] for sample in run.samples(figures.IDLE, proxy)]
        if sizes:
            idle.append((proxy, statistics.median(sizes), f"{statistics.median(sizes):.1f} KB"))
    found.append(("memory of an idle mTLS connection", LESS, idle))
    return [(title, note, [bar for bar in bars if bar[0] != "hyper"]) for title, note, bars in found if len(bars) > 1]


def by_proxy(run, figure):
    return [(proxy, cell) for proxy in run.proxies if (cell := run.cell(figure, proxy))]


def label(figure, value):
    return f"{value / 1e9:.2f} GB/s" if figure.shows in (RECEIVED, SENT) else f"{value:,.0f}"


def draw(charts):
    columns = [charts[number::COLUMNS] for number in range(COLUMNS)]
    # Panels beside each other begin at the same height.
    rows = [charts[start : start + COLUMNS] for start in range(0, len(charts), COLUMNS)]
    heights = [max(panel_height(bars) for _, _, bars in row) for row in rows]
    width = len(columns) * PANEL_WIDTH + (len(columns) - 1) * GAP
    parts, top = [], 0
    for row, height in zip(rows, heights):
        for column, panel in enumerate(row):
            parts += draw_panel(column * (PANEL_WIDTH + GAP), top, *panel)
        top += height
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" role="img">',
        "<title>The gateway beside nginx, HAProxy, Envoy and Pingora</title>",
        f"<style>{STYLE}</style>",
        *parts,
        "</svg>",
    ])  # fmt: skip


def panel_height(bars):
    return TITLE_HEIGHT + len(bars) * BAR_STEP + 18


def draw_panel(left, top, title, note, bars):
    most = max(value for _, value, _ in bars)
    room = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH
    yield f'<text class="title" x="{left}" y="{top + 14}">{escape(title)}</text>'
    if note == LESS:
        yield f'<text class="note end" x="{left + PANEL_WIDTH}" y="{top + 14}">{note}</text>'
    for number, (proxy, value, text) in enumerate(bars):
        y = top + TITLE_HEIGHT + number * BAR_STEP
        ours = proxy == "gateway"
        bar = max(value / most * room, 1)
        yield f'<text class="{"own" if ours else "name"} end" x="{left + NAME_WIDTH - 8}" y="{y + 10}">{report.TITLES[proxy]}</text>'
        yield f'<rect class="{"ours" if ours else "peer"}" x="{left + NAME_WIDTH}" y="{y}" width="{bar:.1f}" height="{BAR_HEIGHT}" rx="2"/>'
        yield f'<text class="{"own" if ours else ""}" x="{left + NAME_WIDTH + bar + 6:.1f}" y="{y + 10}">{escape(text)}</text>'


if __name__ == "__main__":
    main()
