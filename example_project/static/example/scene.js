// Draws the frames of an XYZ text: in three dimensions by 3Dmol, or flat where WebGL is missing.

const RADIUS = 1.2;
const COLOUR = "#5fb0d3";
// The first atom, because the cluster is so regular that a rotation would not be seen.
const FIRST_COLOUR = "#e0861a";

/** The frames of an XYZ text, each an array of `[x, y, z]` in ångström. */
function positions(text) {
  const lines = text.split("\n");
  const frames = [];
  for (let at = 0; at < lines.length && lines[at].trim(); ) {
    const atoms = Number(lines[at]);
    frames.push(lines.slice(at + 2, at + 2 + atoms).map((line) => line.trim().split(/\s+/).slice(1, 4).map(Number)));
    at += 2 + atoms;
  }
  return frames;
}

const hasWebGL = () => {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return context !== null;
};

function solid(element) {
  const background = getComputedStyle(document.documentElement).getPropertyValue("--panel").trim();
  const viewer = globalThis.$3Dmol.createViewer(element, { backgroundColor: background });
  let first = true;
  return {
    count: 0,
    load(text) {
      viewer.removeAllModels();
      viewer.addModelsAsFrames(text, "xyz");
      viewer.setStyle({}, { sphere: { radius: RADIUS, color: COLOUR } });
      viewer.setStyle({ index: 0 }, { sphere: { radius: RADIUS, color: FIRST_COLOUR } });
      this.count = viewer.getNumFrames();
      // The place of the viewer stays when another trajectory comes, so that a rotation is seen.
      if (first) {
        viewer.zoomTo();
        viewer.zoom(0.7);
      }
      first = false;
      viewer.render();
    },
    frame(number) {
      viewer.setFrame(number).then(() => viewer.render());
    },
    spin(on) {
      viewer.spin(on ? "y" : false, 0.5);
    },
  };
}

function flat(element) {
  const SVG = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(SVG, "svg");
  element.replaceChildren(picture);
  let frames = [];
  return {
    count: 0,
    load(text) {
      frames = positions(text);
      this.count = frames.length;
      const reach = Math.max(...frames.flat(2).map(Math.abs)) + 2 * RADIUS;
      picture.setAttribute("viewBox", `${-reach} ${-reach} ${2 * reach} ${2 * reach}`);
    },
    frame(number) {
      const [first] = frames[number];
      const back = [...frames[number]].sort((a, b) => a[2] - b[2]);
      picture.replaceChildren(
        ...back.map((place) => {
          const [x, y] = place;
          const atom = document.createElementNS(SVG, "circle");
          if (place === first) atom.classList.add("first");
          for (const [name, value] of Object.entries({ cx: x, cy: -y, r: RADIUS, "stroke-width": 0.1 })) {
            atom.setAttribute(name, value);
          }
          return atom;
        }),
      );
    },
  };
}

/** `{count, load(text), frame(number), spin(on)}`; no `spin` where the picture is flat. */
export function createScene(element) {
  return hasWebGL() ? solid(element) : flat(element);
}
