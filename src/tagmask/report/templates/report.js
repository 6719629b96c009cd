"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector) => document.querySelector(selector);
  const press = (group, button) => {
    for (const other of all("button", group)) other.setAttribute("aria-pressed", String(other === button));
  };

  // Per class: one set of bars, filled from the chosen scores.
  const data = one("#panel-data");
  if (data) {
    const panels = JSON.parse(data.textContent);
    const list = one("#class-bars");
    const rows = all("li", list);
    const chosen = { measure: panels[0].measure, split: panels[0].split, rule: panels[0].rule };
    const find = (want) => panels.find((p) => Object.keys(want).every((key) => p[key] === want[key]));
    const show = () => {
      const panel = find(chosen);
      if (!panel) return;
      const full = find({ measure: "segmentation_full", split: panel.split, rule: panel.rule });
      const reference = full && full !== panel ? full : null;
      list.style.setProperty("--fill", panel.colour);
      const title = one("#panel-title");
      title.replaceChildren(Object.assign(document.createElement("b"), { textContent: panel.title }), `: mean ${panel.mean}`);
      one("#ref-note").hidden = !reference;
      for (const row of rows) {
        const [iou, precision, recall] = panel.rows[row.dataset.i];
        row.querySelector(".fill").style.width = `${iou ?? 0}%`;
        row.querySelector(".num").textContent = iou === null ? "n/a" : iou.toFixed(1);
        row.querySelector(".pr").textContent = [
          precision === null ? "" : `P ${precision.toFixed(0)}`,
          recall === null ? "" : `R ${recall.toFixed(0)}`,
        ].join(" ").trim();
        const mark = row.querySelector(".ref");
        const at = reference ? reference.rows[row.dataset.i][0] : null;
        mark.hidden = at === null;
        if (at !== null) {
          mark.style.left = `${at}%`;
          mark.title = `full supervision: ${at.toFixed(1)}`;
        }
        row.dataset.value = iou ?? -1;
      }
      const order = one("#order").value;
      const sign = order === "up" ? 1 : -1;
      const key = (row) => (order === "list" ? Number(row.dataset.i) : sign * Number(row.dataset.value));
      list.append(...rows.slice().sort((a, b) => key(a) - key(b) || a.dataset.i - b.dataset.i));
      for (const group of all("[data-panel]")) {
        for (const button of all("button", group)) {
          const what = group.dataset.panel;
          button.setAttribute("aria-pressed", String(button.dataset.value === panel[what]));
          const want = what === "measure" ? { measure: button.dataset.value } : { ...chosen, [what]: button.dataset.value };
          button.disabled = !find(want);
        }
      }
    };
    for (const group of all("[data-panel]")) {
      group.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        if (!button) return;
        chosen[group.dataset.panel] = button.dataset.value;
        if (!find(chosen)) {
          const { measure, rule } = chosen;
          chosen.split = (find({ measure, rule }) ?? find({ measure })).split;
          chosen.rule = (find({ measure, rule, split: chosen.split }) ?? find({ measure, split: chosen.split })).rule;
        }
        show();
      });
    }
    one("#order").addEventListener("change", show);
    show();
  }

  // Gallery: filters, then a page at a time.
  const shots = all(".shot");
  if (!shots.length) return;
  const PAGE = 8;
  const filter = { group: "all", split: "all", label: null };
  let limit = PAGE;
  const fits = (shot) =>
    (filter.group === "all" || shot.dataset.group === filter.group) &&
    (filter.split === "all" || shot.dataset.split === filter.split) &&
    (filter.label === null || shot.dataset.classes.split(" ").includes(filter.label));
  const fitting = () => shots.filter(fits);
  const refresh = () => {
    const left = fitting();
    const shown = new Set(left.slice(0, limit));
    for (const shot of shots) shot.hidden = !shown.has(shot);
    one("#nothing").hidden = left.length > 0;
    one("#more").hidden = left.length <= limit;
    one("#more").textContent = `Show more (${Math.max(left.length - limit, 0)} left)`;
  };
  for (const group of all("[data-filter]")) {
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      press(group, button);
      filter[group.dataset.filter] = button.dataset.value;
      limit = PAGE;
      refresh();
    });
  }
  one(".classes").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    const off = chip.getAttribute("aria-pressed") === "true";
    press(one(".classes"), off ? null : chip);
    filter.label = off ? null : chip.dataset.class;
    limit = PAGE;
    refresh();
  });
  one("#more").addEventListener("click", () => {
    limit += 2 * PAGE;
    refresh();
  });

  const sliders = [one("#opacity"), one("#box-opacity")];
  for (const slider of sliders) {
    slider.addEventListener("input", () => {
      for (const other of sliders) other.value = slider.value;
      document.documentElement.style.setProperty("--overlay", slider.value / 100);
    });
  }

  // Lightbox: the same pictures, larger; arrows go through the images that fit the filter.
  const box = one("#lightbox");
  const picture = one("#box-picture");
  let current = null;
  let layer = 0;
  const tiles = () => all(".tile", current);
  const draw = () => {
    for (const name of ["--photo", "--ratio", "--tall"]) {
      box.style.setProperty(name, current.style.getPropertyValue(name));
    }
    const buttons = tiles();
    layer = Math.min(layer, buttons.length - 1);
    const image = buttons[layer].querySelector("img");
    picture.replaceChildren(...(image ? [image.cloneNode()] : []));
    one("#box-title").textContent = current.querySelector("h3").textContent;
    one("#box-layers").replaceChildren(
      ...buttons.map((tile, index) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = tile.querySelector(".caption").textContent;
        button.setAttribute("aria-pressed", String(index === layer));
        button.addEventListener("click", () => {
          layer = index;
          draw();
          all("button", one("#box-layers"))[index].focus();
        });
        return button;
      }),
    );
  };
  const step = (by) => {
    const kind = tiles()[layer].dataset.kind;
    const left = fitting();
    current = left[(left.indexOf(current) + by + left.length) % left.length];
    layer = Math.max(tiles().findIndex((tile) => tile.dataset.kind === kind), 0);
    draw();
  };
  one("#shots").addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    current = tile.closest(".shot");
    layer = tiles().indexOf(tile);
    draw();
    box.showModal();
    one("#box-next").focus(); // not the slider, which would take the arrow keys
  });
  one("#box-close").addEventListener("click", () => box.close());
  one("#box-previous").addEventListener("click", () => step(-1));
  one("#box-next").addEventListener("click", () => step(1));
  box.addEventListener("click", (event) => {
    if (event.target === box) box.close();
  });
  box.addEventListener("keydown", (event) => {
    if (event.target.type === "range") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    const change = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (change) {
      layer = (layer + change + tiles().length) % tiles().length;
      draw();
      event.preventDefault();
    }
  });
  refresh();
})();
