// What Gradio's part of the page may ask of the studio, from the first moment on: it waits until the scripts are there.
() => {
  // The whole address: a browser that has seen this page at another port may else take "/" for that one.
  const [studio, work] = ["studio.js", "work.js"].map((file) => import(`${location.origin}/studio/page/${file}`));
  const asked = (module, name) => async (...given) => (await module)[name](...given);
  const names = ["refresh", "filter", "select", "selected", "resolution"].map((name) => [name, asked(studio, name)]);
  window.impasto = { ...Object.fromEntries(names), open: asked(work, "open"), plan: asked(work, "plan") };
};
