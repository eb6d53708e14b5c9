// What the panels share: DOM building that cannot inject, visible whitespace, theme, colours.
window.ptx = (() => {

  // el("p", {class: "note"}, "text", child): strings become text nodes, never markup.
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }

  // A button that does something.
  function button(label, call, attributes = {}) {
    const node = el("button", { type: "button", class: "quiet", ...attributes }, label);
    node.addEventListener("click", call);
    return node;
  }

  // What a live region says. Only what is new is set: a screen reader reads out whatever is.
  function say(node, ...children) {
    const said = node.cloneNode(false);
    said.append(...children);
    if (!said.isEqualNode(node)) node.replaceChildren(...said.childNodes);
  }

  // Whether a control can have the focus.
  const usable = (node) => node?.isConnected && !node.disabled && node.checkVisibility();

  // Makes a change in `within` that may disable, hide or remove the control with the focus: then the
  // focus goes to the first usable one of those that `next(control)` names, not to the top of the page.
  // Where the focus is elsewhere nothing is asked: the browser would have to lay the page out to answer.
  function keepFocus(change, next, within = document.body) {
    const held = document.activeElement;
    if (!held || held === document.body || !within.contains(held)) return void change();
    const could = usable(held);
    change();
    const stayed = [held, document.body].includes(document.activeElement); // else the change moved it
    if (could && stayed && !usable(held)) next(held).find(usable)?.focus({ preventScroll: true });
  }

  // A sentence on what went wrong, and nothing where nothing did: {node, tell}.
  function problem() {
    const node = el("p", { class: "message error", role: "alert", hidden: "" });
    function tell(sentence) {
      say(node, sentence ?? "");
      node.hidden = !sentence;
    }
    return { node, tell };
  }

  // Characters that would not be seen, or would move others about: controls, what orders or joins
  // letters without a sign of its own, blanks that are no space. Line feed, tab and space are not
  // among them.
  const UNSEEN =
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Variation_Selector}\u115f\u1160\u3164\uffa0]|(?! )\p{Zs}/u;
  const MARKS = { "\n": "↵", "\r": "␍", "\t": "→", " ": "·" };

  // What stands for such a character: ␀ for a control character, else its number.
  function mark(char) {
    const code = char.codePointAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
  }

  const isUnseen = (char) => char !== "\n" && char !== "\t" && UNSEEN.test(char);

  // A token as a label: its whitespace visible, unseen characters as their marks.
  function visible(text, longest = Infinity) {
    const letters = Array.from(text, (char) => MARKS[char] ?? (isUnseen(char) ? `⟨${mark(char)}⟩` : char));
    return (letters.length <= longest ? letters : [...letters.slice(0, longest - 1), "…"]).join("");
  }

  const isDark = () => document.body.classList.contains("dark");

  function onTheme(callback) {
    new MutationObserver(callback).observe(document.body, {
      attributes: true,
      attributeFilter: ["class"],
    });
  }

  // The value of a style sheet's variable, kept for each theme: to look one up the browser has to work
  // out the styles of all that has changed.
  const colors = new Map();
  function color(name) {
    const key = `${name} ${document.body.className}`;
    const value = colors.get(key) ?? getComputedStyle(document.body).getPropertyValue(name).trim();
    if (value) colors.set(key, value);
    return value;
  }

  // OKLCH (lightness 0..1, chroma, hue in degrees) to sRGB bytes; Ottosson, 2020.
  function oklch(L, C, hue) {
    const a = C * Math.cos((hue * Math.PI) / 180);
    const b = C * Math.sin((hue * Math.PI) / 180);
    const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
    return [
      4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
    ].map((v) => {
      const gamma = v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055;
      return Math.round(255 * Math.min(1, Math.max(0, gamma)));
    });
  }

  // 256 colours in equal steps of perceived lightness, which every kind of colour vision orders
  // alike. No attention is the background; the other end is the opposite of it.
  function ramp(dark) {
    return Array.from({ length: 256 }, (_, i) => {
      const t = i / 255;
      const chroma = 0.008 + 0.13 * Math.sin(Math.PI * Math.min(1, 0.85 * t));
      return dark
        ? oklch(0.22 + 0.73 * t, chroma, 285 - 175 * t)
        : oklch(0.985 - 0.72 * t, chroma, 205 + 85 * t);
    });
  }

  const ramps = {};
  const colormap = () => (ramps[isDark()] ??= ramp(isDark()));

  // The same as numbers that a Uint32Array over an ImageData's bytes takes.
  const packs = {};
  const packedColormap = () =>
    (packs[isDark()] ??= Uint32Array.from(colormap(), ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0));

  // From -1 to 1: orange, the background, blue, which every kind of colour vision tells apart.
  function diverging(share) {
    const t = Math.min(1, Math.abs(share));
    const chroma = 0.005 + 0.13 * t;
    const hue = share < 0 ? 55 : 250;
    const light = isDark() ? 0.27 + 0.45 * t : 0.975 - 0.43 * t;
    return `rgb(${oklch(light, chroma, hue).join(" ")})`;
  }

  // Letters on it.
  function onDiverging(share) {
    const light = Math.abs(share) > 0.6;
    return isDark() ? (light ? "#0b0b0c" : "#f4f4f5") : light ? "#ffffff" : "#18181b";
  }

  const bytes = (base64) =>
    Uint8Array.fromBase64?.(base64) ?? Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  // Puts a text on the clipboard; returns what to say about that. Over plain http a browser has no
  // clipboard for a page, but still the old command, which copies what is selected.
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return "Copied";
    } catch {
      const area = el("textarea", { readonly: "", style: "position: fixed; opacity: 0" });
      area.value = text;
      const focused = document.activeElement;
      (document.querySelector("dialog[open]") ?? document.body).append(area); // the rest is inert
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      focused?.focus({ preventScroll: true });
      return done ? "Copied" : "Not allowed: select and copy";
    }
  }

  // An empty canvas for its place on the page and the screen's pixels; returns its context, scaled.
  function fit(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    const size = [width, height].map((length) => Math.round(length * ratio));
    const g = canvas.getContext("2d");
    // one of another size is made anew, which costs more than wiping it
    if (size.join() === [canvas.width, canvas.height].join()) g.reset();
    else [canvas.width, canvas.height] = size;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    return g;
  }

  // A probability in percent: 100 only for what is certain, 0 only for what cannot be.
  const percent = (p) =>
    p === 0 ? "0" : p >= 0.9995 && p < 1 ? "99.9+" : p >= 0.001 ? (100 * p).toFixed(1) : (100 * p).toExponential(0);

  const number = (value, digits = 3) =>
    Number.isInteger(value)
      ? value.toLocaleString("en")
      : Math.abs(value) >= 0.001
        ? value.toLocaleString("en", { maximumFractionDigits: digits })
        : value.toExponential(1);

  // +0.12, −0.12, and what rounds to nothing without a sign.
  function signed(value, digits = 2) {
    const size = Math.abs(value).toFixed(digits);
    return Number(size) === 0 ? size : `${value < 0 ? "−" : "+"}${size}`;
  }

  // The same in bold, coloured by its sign.
  const signedBold = (value) => el("b", { "data-sign": Math.sign(Math.round(100 * value)) }, signed(value));

  // What a person chose on this page, for the next visit; null where a browser stores nothing.
  function remember(name, value) {
    try {
      localStorage.setItem(name, value);
    } catch {
      // then it is chosen anew
    }
  }

  function remembered(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  }

  return { el, button, say, keepFocus, problem, visible, mark, isUnseen, isDark, onTheme, color, packedColormap, diverging, onDiverging, bytes, copy, fit, percent, number, remember, remembered, signed, signedBold };
})();
