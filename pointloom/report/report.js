"use strict";
// Figures are drawn when they scroll into view, and all of them before printing.
(function () {
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["lasso2d", "select2d", "sendDataToCloud"] };
  const drawn = new Set();

  function drawFigure(box) {
    if (drawn.has(box) || typeof Plotly === "undefined") return;
    drawn.add(box);
    const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    Plotly.newPlot(box, figure.data, figure.layout, config);
  }

  const boxes = Array.from(document.querySelectorAll("[data-figure]"));
  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver(
      (entries) => entries.forEach((entry) => entry.isIntersecting && drawFigure(entry.target)),
      { rootMargin: "300px" });
    boxes.forEach((box) => observer.observe(box));
  } else {
    boxes.forEach(drawFigure);
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((fold) => (fold.open = true));
    boxes.forEach(drawFigure);
  });

  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const clouds = JSON.parse(document.getElementById("viewer-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  function showCloud(number) {
    const cloud = clouds[number];
    const view = new DataView(bytes(cloud.coord).buffer);
    const color = bytes(cloud.color);
    const count = view.byteLength / 6;
    const axes = [0, 1, 2].map((axis) =>
      Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * (3 * i + axis), true) * cloud.scale));
    const colors = Array.from({ length: count }, (_, i) => `rgb(${color[3 * i]},${color[3 * i + 1]},${color[3 * i + 2]})`);
    const hidden = { visible: false };
    Plotly.react(viewer, [{
      type: "scatter3d", mode: "markers", x: axes[0], y: axes[1], z: axes[2],
      marker: { size: 3.2, color: colors, opacity: 1 }, hoverinfo: "skip",
    }], {
      height: 520, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: "camera",
      scene: { aspectmode: "data", xaxis: hidden, yaxis: hidden, zaxis: hidden,
               camera: { eye: { x: 0.8, y: -1.35, z: 0.75 } } },
    }, config);
  }

  const choice = document.getElementById("viewer-choice");
  choice.addEventListener("change", () => showCloud(Number(choice.value)));
  const start = () => showCloud(Number(choice.value));
  if ("IntersectionObserver" in window) {
    const observer = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) { observer.disconnect(); start(); }
    }, { rootMargin: "300px" });
    observer.observe(viewer);
  } else {
    start();
  }
})();
