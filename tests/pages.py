"""What the tests of pages look at in a browser."""

from __future__ import annotations

from typing import Any

# Text over other text, as pairs: boxes of text that overlap by more than two pixels each way.
OVERLAPS = """() => {
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent.trim(), parent = node.parentElement;
    const isShown = !["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(parent.tagName) && parent.checkVisibility();
    if (!text || !isShown) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width > 1 && box.height > 1) boxes.push([box, text, parent]);
  }
  const found = [];
  boxes.forEach(([one, text, parent], at) => boxes.slice(at + 1).forEach(([other, its, another]) => {
    if (parent === another) return;
    const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
    if (wide > 2 && high > 2) found.push(`${text.slice(0, 40)} | ${its.slice(0, 40)}`);
  }));
  return found;
}"""


def check_layout(page: Any) -> None:
    """Nothing is wider than the window, and no text lies over other text."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate(OVERLAPS) == []


def find_barriers(page: Any) -> list[str]:
    """What axe-core finds serious or critical, with the first place of each."""
    from axe_core_python.sync_playwright import Axe

    found = Axe().run(page)["violations"]
    grave = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['nodes'][0]['html'][:150]} ({len(each['nodes'])} places)" for each in grave]


def listen(page: Any) -> list[str]:
    """Everything that the page complains of or asks for outside of itself, from now on."""
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("requestfailed", lambda request: heard.append(request.url[:100]))
    return heard
