"""How the page looks: system fonts, light and dark, nothing wider than a phone."""

from __future__ import annotations

import gradio as gr

_FONTS = ("system-ui", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", "NanumGothic", "sans-serif")
_MONO = ("ui-monospace", "D2Coding", "NanumGothicCoding", "Consolas", "monospace")

CSS = """
.gradio-container { width: 100% !important; max-width: 1080px !important; margin: 0 auto !important;
  word-break: keep-all; }
.gradio-container .fillable { max-width: none !important; padding: 0.5rem 1rem !important; }
.block:has(> .html-container .prose:empty) { display: none; }
.board-head { display: flex; flex-wrap: wrap; align-items: baseline;
  justify-content: space-between; gap: 0.25rem 1rem; }
.board-head h1 { font-size: 1.25rem; margin: 0.4rem 0; }
.wide { overflow-x: auto; max-width: 100%; contain: inline-size; }
.wide :is(table, thead, tbody, tr) { border: 0 !important; }
.wide table { border-collapse: collapse; font-size: 0.875rem; width: max-content; max-width: none; }
.wide th, .wide td { text-align: left; padding: 0.3rem 0.6rem;
  border: 0; border-bottom: 1px solid var(--border-color-primary);
  max-width: 26rem; overflow-wrap: anywhere; vertical-align: top; }
#results-all .wide { max-height: 24rem; overflow: auto; }
.problem { border-left: 4px solid #c2410c; background: color-mix(in srgb, #c2410c 9%, transparent);
  padding: 0.6rem 0.9rem; border-radius: 4px; overflow-wrap: anywhere; white-space: pre-line; }
.problem p { margin: 0.35rem 0 0; }
.said { margin: 0.4rem 0; overflow-wrap: anywhere; white-space: pre-line; }
.bars { display: grid; gap: 0.2rem; }
.bar { display: flex; align-items: center; gap: 0.5rem; font-size: 0.9rem; }
.bar span { flex: 0 1 9rem; overflow-wrap: anywhere; }
.bar i { display: block; height: 0.8rem; background: var(--color-accent); border-radius: 2px; min-width: 2px; }
.command { overflow-x: auto; padding: 0.6rem; border: 1px solid var(--border-color-primary); border-radius: 4px; }
.command code { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; }
.command:not(.log) { white-space: pre-wrap; overflow-wrap: anywhere; }
.log { max-height: 22rem; overflow: auto; }
.text { line-height: 2; overflow-wrap: anywhere; white-space: pre-wrap; }
.asked { margin: 0.8rem 0 0.4rem 20%; padding: 0.5rem 0.8rem; border-radius: 8px; white-space: pre-wrap;
  overflow-wrap: anywhere; background: color-mix(in srgb, var(--color-accent) 12%, transparent); }
.talk { display: flex; flex-direction: column-reverse; max-height: 55vh; overflow-y: auto; }
mark { background: hsl(var(--hue) 75% 85%); color: #111; padding: 0.1rem 0.25rem; border-radius: 3px; }
mark sub { font-size: 0.7em; margin-left: 0.25rem; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0.75rem; }
.curve { margin: 0; } .curve figcaption { font-weight: 600; font-size: 0.9rem; }
.curve svg { width: 100%; height: auto; } .curve text { font-size: 11px; fill: currentColor; }
.curve polyline { fill: none; stroke-width: 2; }
.legend { display: flex; flex-wrap: wrap; gap: 0.75rem; font-size: 0.8rem; }
.line-0 { stroke: #2563eb; } span.line-0 { color: #2563eb; } circle.line-0 { fill: #2563eb; }
.line-1 { stroke: #d97706; } span.line-1 { color: #b45309; } circle.line-1 { fill: #d97706; }
.line-2 { stroke: #059669; } span.line-2 { color: #047857; } circle.line-2 { fill: #059669; }
.line-3 { stroke: #9333ea; } span.line-3 { color: #9333ea; } circle.line-3 { fill: #9333ea; }
iframe.report { width: 100%; height: 75vh; border: 1px solid var(--border-color-primary); border-radius: 4px; }
progress { width: 100%; height: 1rem; accent-color: var(--color-accent); }
.too-large { margin: 0.5rem; }
input:is([role=combobox], [role=listbox]) { text-overflow: ellipsis; padding-right: 1.75rem !important; }
@media (max-width: 480px) {
  .tab-container button { font-size: 0.75rem !important; padding: 0 0.15rem !important; }
  .wide th, .wide td { max-width: 10.5rem; padding: 0.3rem 0.4rem; }
}
"""


def theme() -> gr.themes.Base:
    """Return the theme: fonts of the system alone, since others would be fetched from elsewhere."""
    return gr.themes.Default(font=list(_FONTS), font_mono=list(_MONO))
