// Builds the page. Every text goes in as a text node, so that no source, name or generated text can
// become markup; attributes that could run code or break the security policy are refused.

const kRefused = /^(on|style$|srcdoc$|innerhtml$|outerhtml$)/i;

function append(parent, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(parent, child);
    else parent.append(child instanceof Node ? child : String(child));
  }
  return parent;
}

// `attributes`: strings and booleans become attributes; `on` is {event: handler}; `value`, `checked`
// and `disabled` are set as properties.
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') {
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    } else if (kRefused.test(name)) {
      throw new Error(`attribute ${name} is refused`);
    } else if (name === 'checked' || name === 'disabled') {
      node[name] = value;
    } else {
      node.setAttribute(name, value === true ? '' : String(value));
      if (name === 'value') node.value = String(value);
    }
  }
  return append(node, children);
}

export function replace(node, ...children) {
  node.replaceChildren();
  return append(node, children);
}

// What a screen reader should hear, once, without moving the focus.
export function announce(text) {
  document.getElementById('live').textContent = text;
}

// Calls `action` once `milliseconds` have passed without another call.
export function debounced(milliseconds, action, signal) {
  let timer = 0;
  signal?.addEventListener('abort', () => clearTimeout(timer));
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...values), milliseconds);
  };
}

// Calls `action` now and then every `milliseconds` while the page is in front; never two at once.
export function repeated(milliseconds, action, signal) {
  let timer = 0;
  const round = async () => {
    if (signal.aborted) return;
    try {
      if (!document.hidden) await action();
    } catch {
      // The connection's banner, or the page that shows the same data, says what is wrong.
    }
    if (!signal.aborted) timer = setTimeout(round, milliseconds);
  };
  signal.addEventListener('abort', () => clearTimeout(timer));
  round();
}
