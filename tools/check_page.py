#!/usr/bin/env python3
"""Uses the server's page as a person would, in headless Chromium, and leaves screenshots.

    build/release/swiftkv serve smollm2-135m --port 8123 &
    tools/check_page.py --url http://127.0.0.1:8123 --out /tmp/page

Needs: the package playwright, and Chromium (--chromium).
"""
import argparse
import pathlib
import re

from playwright.sync_api import expect, sync_playwright


def check_chat(page):
    """Keyboard alone: the cursor stands in the message, Enter sends, the answer streams, Escape stops the next one."""
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("Say hello.")
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant")
    expect(answer.locator(".timing")).to_contain_text("prompt tokens", timeout=60_000)
    assert answer.inner_text().strip()
    expect(page.locator("#status")).to_contain_text("The answer is complete")
    expect(page.get_by_label("Your message")).to_be_focused()

    page.keyboard.type("Write a very long story about the sea.")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant").nth(1)).to_have_text(re.compile(r"^Model.{20,}", re.DOTALL), timeout=60_000)
    expect(page.get_by_role("button", name="Stop")).to_be_enabled()
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def check_new_chat(page):
    """A chat that is begun while an answer streams has nothing of it."""
    page.get_by_role("button", name="New chat").click()
    page.get_by_label("Your message").fill("Write a very long story about the sea.")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant")).to_have_text(re.compile(r"^Model.{20,}", re.DOTALL), timeout=60_000)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()
    expect(page.locator("#status")).to_have_text("A new chat.")
    assert page.locator(".message").count() == 0
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_label("Your message").fill("Say hello.")
        page.keyboard.press("Enter")
    assert sent.value.post_data_json["messages"] == [{"role": "user", "content": "Say hello."}]
    expect(page.locator(".message.assistant .timing")).to_contain_text("prompt tokens", timeout=60_000)


def check_live_view(page):
    live = page.get_by_role("complementary", name="Live view of the server")
    expect(live.locator("#ttft")).to_contain_text("s", timeout=15_000)
    expect(live.locator("#saved")).to_contain_text("%")
    expect(live.locator("#capacity")).to_contain_text("tokens")


def check_errors(page):
    page.get_by_text("Settings").click()
    page.get_by_label("Top p").fill("7")
    page.get_by_label("Your message").fill("x")
    page.evaluate("document.getElementById('form').noValidate = true")  # what the server says, not the browser
    page.keyboard.press("Enter")
    expect(page.locator(".message.error")).to_contain_text("top_p", timeout=10_000)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("page-screenshots"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=flags.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(flags.url)
        check_chat(page)
        check_new_chat(page)
        check_live_view(page)
        page.screenshot(path=flags.out / "light.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=flags.out / "dark.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.screenshot(path=flags.out / "phone.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 800})
        assert not problems, problems
        check_errors(page)
        page.screenshot(path=flags.out / "error.png")
        page.get_by_role("button", name="New chat").click()
        assert page.locator(".message").count() == 0
        browser.close()
    print(f"page: ok, screenshots in {flags.out}")


if __name__ == "__main__":
    main()
