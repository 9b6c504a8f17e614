"use strict";
// Two panes with the same scene in two layers, for example truth and prediction; their cameras move together.
(function () {
  const data = document.getElementById("scene-data");
  if (!data) return;
  const scenes = JSON.parse(data.textContent);
  const choice = document.getElementById("scene-choice");
  const panes = [0, 1].map((i) => ({
    plot: document.getElementById(`scene-pane-${i}`),
    layer: document.getElementById(`scene-layer-${i}`),
    legend: document.getElementById(`scene-legend-${i}`),
  }));
  const config = { displaylogo: false, responsive: true, displayModeBar: false };
  const start = { eye: { x: 0.85, y: -1.2, z: 1.4 }, center: { x: 0, y: 0, z: -0.1 } };
  let camera = start;

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  function points(text, scale) {
    const view = new DataView(bytes(text).buffer);
    const count = view.byteLength / 6;
    return [0, 1, 2].map((axis) =>
      Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * (3 * i + axis), true) * scale));
  }

  function traces(scene, layer) {
    const [x, y, z] = points(layer.coord || scene.coord, scene.scale);
    const rgb = bytes(layer.color);
    const color = Array.from(x, (_, i) => `rgb(${rgb[3 * i]},${rgb[3 * i + 1]},${rgb[3 * i + 2]})`);
    const cloud = { type: "scatter3d", mode: "markers", x, y, z, hoverinfo: "skip", showlegend: false,
      marker: { size: 3, color, opacity: 1, line: { width: 0 } } };
    const boxes = layer.lines.flatMap((line) => [
      { type: "scatter3d", mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: line.color, width: 5 },
        x: line.points.map((p) => p && p[0]), y: line.points.map((p) => p && p[1]), z: line.points.map((p) => p && p[2]) },
      { type: "scatter3d", mode: "markers", showlegend: false, hoverinfo: "text", text: line.words,
        marker: { size: 4, color: line.color }, x: line.places.map((p) => p[0]), y: line.places.map((p) => p[1]),
        z: line.places.map((p) => p[2]) },
    ]);
    return [cloud, ...boxes];
  }

  function draw(pane) {
    const scene = scenes[Number(choice.value)];
    const layer = scene.layers[Number(pane.layer.value)];
    const hidden = { visible: false };
    pane.legend.replaceChildren(...layer.legend.map(([word, color]) => {
      const item = document.createElement("span");
      const swatch = document.createElement("i");
      swatch.style.background = color;
      item.append(swatch, word);
      return item;
    }));
    return Plotly.react(pane.plot, traces(scene, layer), {
      height: 460, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)",
      scene: { aspectmode: "data", xaxis: hidden, yaxis: hidden, zaxis: hidden, camera },
    }, config);
  }

  function show() {
    const layers = scenes[Number(choice.value)].layers;
    camera = start;
    panes.forEach((pane, i) => {
      pane.layer.replaceChildren(...layers.map((layer, number) => new Option(layer.title, number)));
      pane.layer.value = String(Math.min(i, layers.length - 1));
    });
    return Promise.all(panes.map(draw));
  }

  function follow(pane, other) {
    pane.plot.on("plotly_relayout", (change) => {
      const moved = change["scene.camera"];
      if (!moved || JSON.stringify(moved) === JSON.stringify(camera)) return;
      camera = moved;
      Plotly.relayout(other.plot, { "scene.camera": moved });
    });
  }

  setTimeout(() => show().then(() => {
    choice.addEventListener("change", show);
    panes.forEach((pane, i) => {
      pane.layer.addEventListener("change", () => draw(pane));
      follow(pane, panes[1 - i]);
    });
  }), 0);
})();
