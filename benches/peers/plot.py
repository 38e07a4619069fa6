"""Bar charts as SVG: labels as text, colours for light and for dark, no fonts but the reader's own."""

from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 760, 190, 150, 20, 9, 52

# The background stays the page's; prefers-color-scheme reaches an image on a page as well.
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.quiet { fill: #57606a }
.bar { fill: #8c959f } .ours { fill: #0969da } .spread { stroke: #24292f; stroke-width: 1.5 }
.cut { stroke: #ffffff; stroke-width: 4 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #9198a1 }
  .bar { fill: #6e7681 } .ours { fill: #4493f8 } .spread { stroke: #e6edf3 }
  .cut { stroke: #0d1117 }
}
"""


def longest_drawn(values):
    """The value that takes the whole width. One that is far beyond all others is cut, so that they can be told apart."""
    *others, second, largest = [0, *sorted(values)] if values else [0, 1]
    return second * 1.2 if others and second and largest > 4 * second else largest or 1


def bars(title, subtitle, rows, emphasised):
    """Horizontal bars of `(label, value, low, high, text)`; what has no value shows its text alone."""
    longest = longest_drawn([high for _, value, _, high, _ in rows if value is not None])
    scale = (WIDTH - LEFT - RIGHT) / longest
    height = TOP + len(rows) * (BAR + GAP) + 6
    said = ", ".join(f"{label} {text}" for label, *_, text in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title + ": " + said, {chr(34): "&quot;"})}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text class="quiet" x="8" y="39">{escape(subtitle)}</text>',
    ]
    for number, (label, value, low, high, text) in enumerate(rows):
        y = TOP + number * (BAR + GAP)
        middle = y + BAR / 2
        ours = label.startswith(emphasised)
        parts.append(f'<text x="{LEFT - 10}" y="{middle + 4.5}" text-anchor="end">{escape(label)}</text>')
        if value is None:
            parts.append(f'<text class="quiet" x="{LEFT}" y="{middle + 4.5}">{escape(text)}</text>')
            continue
        kind = "bar ours" if ours else "bar"
        cut = high > longest
        value, low, high = (min(figure, longest) for figure in (value, low, high))
        parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(value * scale, 1):.1f}" height="{BAR}" rx="2"/>')
        if cut:
            x = LEFT + longest * scale * 0.93
            parts.append(f'<path class="cut" d="M{x:.1f} {y - 3}l6 {BAR + 6}"/>')
        elif high > low:
            begin, end = LEFT + low * scale, LEFT + high * scale
            parts.append(f'<path class="spread" d="M{begin:.1f} {middle}H{end:.1f}"/>')
        parts.append(f'<text x="{LEFT + high * scale + 8:.1f}" y="{middle + 4.5}">{escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
