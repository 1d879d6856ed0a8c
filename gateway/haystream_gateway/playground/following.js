// Keeps the newest text in view for as long as the reader is at the bottom, and leaves alone whoever reads further up.

const NEAR_PIXELS = 64;

export class Following {
  /** `isAway` tells whether the reader looks at something else, so that scrolling means nothing. */
  constructor(button, isAway) {
    this.button = button;
    this.isOn = true;
    addEventListener("scroll", () => isAway() || this.look(), { passive: true });
    button.addEventListener("click", () => this.begin());
  }

  look() {
    const { scrollHeight, clientHeight, scrollTop } = document.documentElement;
    this.isOn = scrollHeight - clientHeight - scrollTop < NEAR_PIXELS;
    this.button.hidden = this.isOn;
  }

  /** Go to the newest text, and stay there. */
  begin() {
    this.isOn = true;
    this.button.hidden = true;
    this.keepUp();
  }

  /** To be called when there is more text. */
  keepUp() {
    if (this.isOn) scrollTo({ top: document.documentElement.scrollHeight, behavior: "instant" });
  }
}
