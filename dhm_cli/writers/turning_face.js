"use strict";
// A dense face, drawn by WebGL in the colours of its tile. It turns by dragging, and by the arrow keys.
class TurningFace {
  // `modes`: the mean and the modes of the model one after another, of each first all x, then y, then z, in steps.
  constructor(canvas, modes, triangles, step) {
    Object.assign(this, { canvas, modes, triangles, step, colours: true, isDue: false });
    const gl = (this.gl = canvas.getContext("webgl"));
    if (!gl) throw new Error("this browser has no WebGL");
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, TurningFace.VERTEX], [gl.FRAGMENT_SHADER, TurningFace.FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.uniform = (name) => gl.getUniformLocation(program, name);
    this.buffers = ["point", "normal"].map((name) => {
      const buffer = gl.createBuffer(), place = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      return buffer;
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, side, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
    gl.enable(gl.DEPTH_TEST);

    let held = null; // where the pointer was
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      held = event;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held || event.pointerId !== held.pointerId) return;
      this.turnBy((event.clientX - held.clientX) / 150, (event.clientY - held.clientY) / 150);
      held = event;
    });
    canvas.addEventListener("lostpointercapture", () => (held = null));
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      this.turnBy(...by);
    });
    new ResizeObserver(() => this.later()).observe(canvas);
  }

  // `pose`: of the face in its tile, a matrix and a place, in thousandths of the tile; `weights`: of the modes, hundredths.
  show([pose, weights], image) {
    const { gl, modes, triangles, step } = this, count = modes.length / 3 / (weights.length + 1);
    const shape = new Float32Array(3 * count), points = new Float32Array(3 * count), normals = new Float32Array(3 * count);
    [100, ...weights].forEach((weight, mode) => {
      const start = mode * shape.length, by = (step * weight) / 100;
      if (weight) for (let i = 0; i < shape.length; i++) shape[i] += by * modes[start + i];
    });
    const least = [Infinity, Infinity, Infinity], most = [-Infinity, -Infinity, -Infinity];
    for (let v = 0; v < count; v++) {
      for (let row = 0; row < 3; row++) {
        let at = pose[9 + row];
        for (let k = 0; k < 3; k++) at += pose[3 * row + k] * shape[k * count + v];
        points[3 * v + row] = at = (row === 1 ? -at : at) / 1000; // y up, as WebGL has it
        least[row] = Math.min(least[row], at);
        most[row] = Math.max(most[row], at);
      }
    }
    for (let t = 0; t < triangles.length; t += 3) {
      const [a, b, c] = [0, 1, 2].map((corner) => 3 * triangles[t + corner]);
      for (let k = 0; k < 3; k++) {
        const [l, m] = [(k + 1) % 3, (k + 2) % 3];
        const part = (points[b + l] - points[a + l]) * (points[c + m] - points[a + m])
          - (points[b + m] - points[a + m]) * (points[c + l] - points[a + l]);
        for (const corner of [a, b, c]) normals[corner + k] += part;
      }
    }
    [points, normals].forEach((values, k) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[k]);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    });
    gl.uniform3fv(this.uniform("centre"), least.map((value, k) => (value + most[k]) / 2));
    gl.uniform1f(this.uniform("zoom"), 1.9 / Math.hypot(...least.map((value, k) => most[k] - value)));
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
    this.turn = [1, 0, 0, 0, 1, 0, 0, 0, 1]; // column by column
    this.later();
  }

  // By angles about the axes of the picture, in radians: to the right, then down.
  turnBy(right, down) {
    const [c, s, d, e] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const by = [c, e * s, -d * s, 0, d, e, s, -e * c, d * c], old = this.turn;
    this.turn = old.map((_, i) => [0, 1, 2].reduce((sum, k) => sum + by[3 * k + (i % 3)] * old[3 * Math.floor(i / 3) + k], 0));
    this.later();
  }

  later() {
    if (!this.isDue) requestAnimationFrame(() => this.draw());
    this.isDue = true;
  }

  draw() {
    const { gl, canvas } = this;
    this.isDue = false;
    [canvas.width, canvas.height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * devicePixelRatio));
    const side = Math.min(canvas.width, canvas.height);
    gl.viewport((canvas.width - side) / 2, (canvas.height - side) / 2, side, side);
    gl.uniformMatrix3fv(this.uniform("turn"), false, this.turn);
    gl.uniform1f(this.uniform("colours"), this.colours ? 1 : 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.drawElements(gl.TRIANGLES, this.triangles.length, gl.UNSIGNED_SHORT, 0);
  }
}
TurningFace.VERTEX = `
attribute vec3 point, normal;
uniform mat3 turn;
uniform vec3 centre;
uniform float zoom;
varying vec3 facing;
varying vec2 place;
varying float seen;
void main() {
  gl_Position = vec4(zoom * turn * (point - centre) * vec3(1, 1, -0.5), 1);
  vec3 unit = normalize(normal);
  facing = turn * unit;
  place = vec2(point.x, -point.y);
  seen = unit.z;
}`;
// What the photo does not show well is grey.
TurningFace.FRAGMENT = `
precision mediump float;
uniform sampler2D photo;
uniform float colours;
varying vec3 facing;
varying vec2 place;
varying float seen;
void main() {
  vec3 normal = normalize(facing);
  float light = 0.3 + 0.7 * max(dot(normal, vec3(-0.3, 0.4, 0.866)), 0.0);
  vec2 inside = smoothstep(0.0, 0.02, place) * smoothstep(0.0, 0.02, 1.0 - place);
  float known = colours * inside.x * inside.y * smoothstep(0.15, 0.4, seen);
  vec3 colour = mix(vec3(0.75) * light, texture2D(photo, place).rgb, known);
  gl_FragColor = vec4(colour * (normal.z < 0.0 ? 0.35 : 1.0), 1);
}`;
