// Gradio tells of typing only when a key is pressed; a paste, a deletion or a dictation must be saved at once as well.
() => {
  document.addEventListener("input", (event) => {
    if (event.target.closest("#caption, #trigger")) {
      event.target.dispatchEvent(new KeyboardEvent("keypress"));
    }
  });
};
