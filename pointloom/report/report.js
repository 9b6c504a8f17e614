"use strict";
// Figures are drawn one per turn of the event loop, so that the page can be read while they appear.
(function () {
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const waiting = Array.from(document.querySelectorAll("[data-figure]"));

  function drawNext() {
    const box = waiting.shift();
    if (!box) return showViewer();
    const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    Plotly.newPlot(box, figure.data, figure.layout, config).then(() => setTimeout(drawNext, 0));
  }

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  function showCloud(viewer, cloud) {
    const view = new DataView(bytes(cloud.coord).buffer);
    const color = bytes(cloud.color);
    const count = view.byteLength / 6;
    const axes = [0, 1, 2].map((axis) =>
      Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * (3 * i + axis), true) * cloud.scale));
    const colors = Array.from({ length: count }, (_, i) => `rgb(${color[3 * i]},${color[3 * i + 1]},${color[3 * i + 2]})`);
    const hidden = { visible: false, range: [-1, 1] };
    Plotly.react(viewer, [{
      type: "scatter3d", mode: "markers", x: axes[0], y: axes[1], z: axes[2],
      marker: { size: 3.6, color: colors, opacity: 1, line: { width: 0 } }, hoverinfo: "skip",
    }], {
      height: 520, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: "camera",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#b0b6bf", activecolor: "#1d2129" },
      scene: { aspectmode: "cube", xaxis: hidden, yaxis: hidden, zaxis: hidden,
               camera: { eye: { x: 0.62, y: -1.07, z: 0.58 } } },
    }, config);
  }

  function showViewer() {
    const viewer = document.getElementById("viewer");
    if (!viewer) return;
    const clouds = JSON.parse(document.getElementById("viewer-data").textContent);
    const choice = document.getElementById("viewer-choice");
    choice.addEventListener("change", () => showCloud(viewer, clouds[Number(choice.value)]));
    showCloud(viewer, clouds[Number(choice.value)]);
  }

  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((fold) => (fold.open = true)));
  setTimeout(drawNext, 0);
})();
