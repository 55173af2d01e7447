// What Gradio's part of the page may ask of the studio, from the first moment on: it waits until the scripts are there.
() => {
  const [studio, work] = [import("/studio/page/studio.js"), import("/studio/page/work.js")];
  const asked = (module, name) => async (...given) => (await module)[name](...given);
  const names = ["refresh", "filter", "select", "selected", "resolution"].map((name) => [name, asked(studio, name)]);
  window.impasto = { ...Object.fromEntries(names), open: asked(work, "open"), plan: asked(work, "plan") };
};
