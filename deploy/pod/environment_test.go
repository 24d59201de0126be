package pod

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// process is what the container runs, and as whom.
func (c *container) process() (*process, error) {
	env, err := c.environment()
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.spec.Name, err)
	}
	command, args := c.image.config.Entrypoint, c.image.config.Cmd
	if len(c.spec.Command) > 0 {
		command, args = c.spec.Command, nil
	}
	if len(c.spec.Args) > 0 {
		args = c.spec.Args
	}
	p := &process{Dir: cmp.Or(c.spec.WorkingDir, c.image.config.WorkingDir, "/")}
	for _, arg := range slices.Concat(command, args) {
		p.Args = append(p.Args, expand(arg, env))
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		p.Env = append(p.Env, name+"="+env[name])
	}
	if p.UID, p.GID, err = c.image.owner(); err != nil {
		return nil, err
	}
	s := c.kubelet.securityContext(c.spec)
	if s.RunAsUser != nil {
		p.UID, p.GID = uint32(*s.RunAsUser), 0
	}
	if s.RunAsGroup != nil {
		p.GID = uint32(*s.RunAsGroup)
	}
	if s.RunAsNonRoot != nil && *s.RunAsNonRoot && p.UID == 0 {
		return nil, fmt.Errorf("container %s has runAsNonRoot and would run as root", c.spec.Name)
	}
	if group := c.kubelet.fsGroup(); group != nil {
		p.Groups = append(p.Groups, uint32(*group))
	}
	p.NoNewPrivileges = s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation
	p.Capabilities = s.Capabilities == nil || !slices.Contains(s.Capabilities.Drop, "ALL")
	return p, nil
}

// securityContext is the container's, with the pod's where it says nothing.
func (k *kubelet) securityContext(c *corev1.Container) corev1.SecurityContext {
	var s corev1.SecurityContext
	if c.SecurityContext != nil {
		s = *c.SecurityContext
	}
	if p := k.pod.Spec.SecurityContext; p != nil {
		s.RunAsUser = cmp.Or(s.RunAsUser, p.RunAsUser)
		s.RunAsGroup = cmp.Or(s.RunAsGroup, p.RunAsGroup)
		s.RunAsNonRoot = cmp.Or(s.RunAsNonRoot, p.RunAsNonRoot)
	}
	return s
}

// environment is the image's, and over it the container's.
func (c *container) environment() (map[string]string, error) {
	env := map[string]string{"HOSTNAME": c.kubelet.pod.Name}
	for _, v := range c.image.config.Env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	for _, from := range c.spec.EnvFrom {
		switch {
		case from.ConfigMapRef != nil:
			m, found := c.kubelet.objects.configMaps[from.ConfigMapRef.Name]
			if !found {
				return nil, fmt.Errorf("configmap %q not found", from.ConfigMapRef.Name)
			}
			for key, value := range m.Data {
				env[from.Prefix+key] = value
			}
		case from.SecretRef != nil:
			s, found := c.kubelet.objects.secrets[from.SecretRef.Name]
			if !found {
				return nil, fmt.Errorf("secret %q not found", from.SecretRef.Name)
			}
			for key, value := range s.Data {
				env[from.Prefix+key] = string(value)
			}
		}
	}
	for _, v := range c.spec.Env {
		value, err := c.value(&v, env)
		if err != nil {
			return nil, fmt.Errorf("env %s: %w", v.Name, err)
		}
		env[v.Name] = value
	}
	return env, nil
}

func (c *container) value(v *corev1.EnvVar, env map[string]string) (string, error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return expand(v.Value, env), nil
	case from.FieldRef != nil:
		value, known := map[string]string{
			"status.podIP": c.kubelet.ip.String(), "status.podIPs": c.kubelet.ip.String(), "status.hostIP": nodeIP.String(),
			"metadata.name": c.kubelet.pod.Name, "metadata.namespace": namespaceName, "spec.nodeName": "node",
		}[from.FieldRef.FieldPath]
		if !known {
			return "", fmt.Errorf("field %q is not known to this kubelet", from.FieldRef.FieldPath)
		}
		return value, nil
	case from.ResourceFieldRef != nil:
		switch from.ResourceFieldRef.Resource {
		case "limits.memory":
			return strconv.FormatInt(c.spec.Resources.Limits.Memory().Value(), 10), nil
		case "limits.cpu":
			return strconv.FormatInt(c.spec.Resources.Limits.Cpu().Value(), 10), nil
		}
	case from.SecretKeyRef != nil:
		if s, found := c.kubelet.objects.secrets[from.SecretKeyRef.Name]; found {
			return string(s.Data[from.SecretKeyRef.Key]), nil
		}
	case from.ConfigMapKeyRef != nil:
		if m, found := c.kubelet.objects.configMaps[from.ConfigMapKeyRef.Name]; found {
			return m.Data[from.ConfigMapKeyRef.Key], nil
		}
	}
	return "", fmt.Errorf("its source is not there, or not known to this kubelet")
}

// expand puts variables in the place of $(NAME); $$ is a $.
func expand(text string, env map[string]string) string {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text = rest
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		value, known := env[name]
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "(") && closed && known:
			out.WriteString(value)
			text = after
		default:
			out.WriteByte('$')
		}
	}
}
