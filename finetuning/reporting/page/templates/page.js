"use strict";
const find = document.getElementById("find");
if (find) {
  const cases = [...document.querySelectorAll(".case")];
  const texts = cases.map((one) => one.textContent.toLowerCase());
  const count = document.getElementById("count");
  find.addEventListener("input", () => {
    const wanted = find.value.normalize("NFC").toLowerCase().trim();
    let shown = 0;
    cases.forEach((one, place) => {
      one.hidden = !texts[place].includes(wanted);
      shown += one.hidden ? 0 : 1;
    });
    count.textContent = shown.toLocaleString();
  });
}
