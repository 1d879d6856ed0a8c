// Elements in one expression. Text is always text here, and never markup.

export const at = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Keep a list of views as long as a list that only grows, and show each item in its view. */
export function grow(views, items, container, viewOf) {
  items.forEach((item, index) => {
    if (!views[index]) {
      views[index] = viewOf(item);
      container.append(views[index].element);
    }
    views[index].show(item, index === items.length - 1);
  });
}
